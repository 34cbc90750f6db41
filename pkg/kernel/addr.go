package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/state"

	"golang.org/x/sys/unix"
)

// ifaProto is IFA_PROTO of linux/if_addr.h: who made the address. Kernels
// before 5.18 do not know it and leave it out; there an address of ours looks
// like anybody's, so that Prune lets it be.
const ifaProto = 11

// Addr is an address of a link.
type Addr struct {
	Link   string
	Index  int
	Prefix netip.Prefix
	// Proto says who made it: 0 nobody says, else as in IFA_PROTO.
	Proto uint8
}

func addrHeader(index int, p netip.Prefix) []byte {
	b := make([]byte, unix.SizeofIfAddrmsg)
	if p.IsValid() {
		b[0], b[1] = family(p.Addr()), uint8(p.Bits())
	}
	ne.PutUint32(b[4:], uint32(index))
	return b
}

// addrMessage makes or deletes an address.
func addrMessage(typ, flags uint16, index int, p netip.Prefix) message {
	h := addrHeader(index, p)
	if p.Addr().Is6() && typ == unix.RTM_NEWADDR {
		// The configuration says that nobody else has it, and without
		// duplicate address detection it is good at once.
		h[2] = unix.IFA_F_NODAD
	}
	// The kernel takes the one for the address and the other for the far end
	// of a point-to-point link; ip sends both.
	return newMessage(typ, flags, h).addr(unix.IFA_LOCAL, p.Addr()).addr(unix.IFA_ADDRESS, p.Addr())
}

// addrs lists the addresses of one link, or of all where index is 0. It leaves
// the name of the link out.
func (c *conn) addrs(ctx context.Context, index int) ([]Addr, error) {
	bodies, err := c.dump(ctx, newMessage(unix.RTM_GETADDR, 0, addrHeader(index, netip.Prefix{})))
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	list := make([]Addr, 0, len(bodies))
	for _, b := range bodies {
		a, ok := parseAddr(b)
		if ok && (index == 0 || index == a.Index) {
			list = append(list, a)
		}
	}
	return list, nil
}

func parseAddr(b []byte) (Addr, bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return Addr{}, false
	}
	a := Addr{Index: getU32(b[4:])}
	var local, address netip.Addr
	for typ, v := range attrs(b[unix.SizeofIfAddrmsg:]) {
		switch typ {
		case unix.IFA_LOCAL:
			local = getAddr(v)
		case unix.IFA_ADDRESS:
			address = getAddr(v)
		case ifaProto:
			if len(v) > 0 {
				a.Proto = v[0]
			}
		}
	}
	if !local.IsValid() {
		local = address
	}
	a.Prefix = netip.PrefixFrom(local, int(b[1]))
	return a, a.Prefix.IsValid()
}

// observeAddrs adds the wanted addresses, whoever made them, and the network's.
func (b *Backend) observeAddrs(ctx context.Context, c *conn, want, have state.Set) error {
	devs := slices.Concat(b.scope.AddrLinks, b.scope.SharedLinks)
	for _, o := range want {
		if a, ok := o.(state.Addr); ok {
			devs = append(devs, a.Dev)
		}
	}
	return c.eachLink(devs, func(dev string, index int) error {
		list, err := c.addrs(ctx, index)
		for _, a := range list {
			o := state.Addr{Dev: dev, Prefix: a.Prefix}
			ours := a.Proto == state.RouteProtocol && b.scope.owns(dev, a.Prefix.Addr())
			if _, wanted := want[o.ID()]; wanted || ours {
				have.Put(o)
			}
		}
		return err
	})
}

// owns reports whether an address that carries our protocol is the network's.
func (s Scope) owns(dev string, a netip.Addr) bool {
	return slices.Contains(s.AddrLinks, dev) || slices.Contains(s.SharedLinks, dev) && slices.Contains(s.Gateways, a)
}

func newAddr(c *conn, a state.Addr) (message, error) {
	index, err := c.index(a.Dev)
	if err != nil {
		return nil, err
	}
	return addrMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, a.Prefix).u8(ifaProto, state.RouteProtocol), nil
}

// delAddr is nil where there is nothing of ours to delete: the kernel would
// delete anybody's.
func delAddr(ctx context.Context, c *conn, a state.Addr) (message, error) {
	index, err := c.index(a.Dev)
	if errors.As(err, new(noLink)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := c.addrs(ctx, index)
	if err != nil {
		return nil, err
	}
	for _, have := range list {
		if have.Prefix == a.Prefix && have.Proto == state.RouteProtocol {
			return addrMessage(unix.RTM_DELADDR, 0, index, a.Prefix), nil
		}
	}
	return nil, nil
}

// sameAddr says whether an address that the kernel calls taken is the one we
// meant: IPv6 refuses a second prefix length too.
func (c *conn) sameAddr(ctx context.Context, index int, p netip.Prefix) error {
	list, err := c.addrs(ctx, index)
	if err != nil {
		return err
	}
	for _, a := range list {
		if a.Prefix == p {
			return nil
		}
	}
	for _, a := range list {
		if a.Prefix.Addr() == p.Addr() {
			return fmt.Errorf("%w: the link has it as %s", unix.EEXIST, a.Prefix)
		}
	}
	return unix.EEXIST
}
