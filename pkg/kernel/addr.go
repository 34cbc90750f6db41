package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/state"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addr is an address of a link.
type Addr struct {
	Link   string
	Index  int
	Prefix netip.Prefix
	// Proto says who made it: 0 nobody says, else as in IFA_PROTO.
	Proto uint8
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// ipNet is a prefix as the library has it; host bits stay.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefix is the reverse of ipNet; nil is the zero Prefix.
func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a := addrOf(n.IP)
	bits, size := n.Mask.Size()
	if size == a.Unmap().BitLen() {
		a = a.Unmap() // the library's 0.0.0.0 has 16 bytes
	}
	return netip.PrefixFrom(a, bits)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a
}

// addrFlags: the configuration says that nobody else has an address, and
// without duplicate address detection it is good at once.
func addrFlags(p netip.Prefix) uint8 {
	if p.Addr().Is6() {
		return unix.IFA_F_NODAD
	}
	return 0
}

// libAddr is an address as the library has it. It has no broadcast address,
// which the library else makes up.
func libAddr(index int, p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: ipNet(p), LinkIndex: index, Flags: int(addrFlags(p)), Broadcast: net.IPv4zero}
}

// addrs lists the addresses of one link, or of all where index is 0. It leaves
// the name of the link and Proto out.
func (c *conn) addrs(ctx context.Context, index int) ([]Addr, error) {
	list, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	addrs := make([]Addr, 0, len(list))
	for _, a := range list {
		if index != 0 && index != a.LinkIndex {
			continue
		}
		p := prefix(a.IPNet)
		if a.Peer != nil { // the prefix length is the far end's
			p = netip.PrefixFrom(p.Addr(), prefix(a.Peer).Bits())
		}
		if p.IsValid() {
			addrs = append(addrs, Addr{Index: a.LinkIndex, Prefix: p})
		}
	}
	return addrs, nil
}

// observeAddrs adds the wanted addresses, whoever made them, and the network's.
func (b *Backend) observeAddrs(ctx context.Context, c *conn, want, have state.Set) error {
	devs := slices.Concat(b.scope.AddrLinks, b.scope.SharedLinks)
	for _, o := range want {
		if a, ok := o.(state.Addr); ok {
			devs = append(devs, a.Dev)
		}
	}
	links, err := c.indexesOf(ctx, devs)
	if err != nil || len(links) == 0 {
		return err
	}
	list, err := c.addrsWithProto(ctx)
	for _, a := range list {
		dev, ok := links[a.Index]
		if !ok {
			continue
		}
		o := state.Addr{Dev: dev, Prefix: a.Prefix}
		ours := a.Proto == state.RouteProtocol && b.scope.owns(dev, a.Prefix.Addr())
		if _, wanted := want[o.ID()]; wanted || ours {
			have.Put(o)
		}
	}
	return err
}

// owns reports whether an address that carries our protocol is the network's.
func (s Scope) owns(dev string, a netip.Addr) bool {
	return slices.Contains(s.AddrLinks, dev) || slices.Contains(s.SharedLinks, dev) && slices.Contains(s.Gateways, a)
}

func (c *conn) addAddr(ctx context.Context, a state.Addr) error {
	index, err := c.index(ctx, a.Dev)
	if err != nil {
		return err
	}
	return c.sameAddr(ctx, index, a.Prefix, newAddr(ctx, index, a.Prefix, state.RouteProtocol))
}

// delAddr deletes nothing where nothing is ours: the kernel would delete
// anybody's.
func (c *conn) delAddr(ctx context.Context, a state.Addr) error {
	index, err := c.index(ctx, a.Dev)
	if err != nil {
		return err
	}
	list, err := c.addrsWithProto(ctx)
	if err != nil || !slices.Contains(list, Addr{Index: index, Prefix: a.Prefix, Proto: state.RouteProtocol}) {
		return err
	}
	return c.execute(ctx, func(h *netlink.Handle) error { return h.AddrDel(nil, libAddr(index, a.Prefix)) })
}

// sameAddr forgets the error about an address that is there already. IPv6
// refuses a second prefix length too.
func (c *conn) sameAddr(ctx context.Context, index int, p netip.Prefix, err error) error {
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	list, err := c.addrs(ctx, index)
	if err != nil {
		return err
	}
	other := netip.Prefix{}
	for _, a := range list {
		if a.Prefix == p {
			return nil
		}
		if a.Prefix.Addr() == p.Addr() {
			other = a.Prefix
		}
	}
	if other.IsValid() {
		return fmt.Errorf("%w: the link has it as %s", unix.EEXIST, other)
	}
	return unix.EEXIST
}
