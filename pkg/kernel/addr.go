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
	// Link is the link's name, "" where it is gone by now, and Index its index.
	Link  string
	Index int
	// Prefix is the address with the length of its subnet.
	Prefix netip.Prefix
	// Proto is the address's IFA_PROTO, which tells who made it; 0 is not known.
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

// observeAddrs adds the wanted addresses, also those that others made, and the
// network's.
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
	list, err := c.addrs(ctx, 0)
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

// addAddr gives a link an address; proto is as in Addr. One that it has already
// is fine.
func (c *conn) addAddr(ctx context.Context, index int, p netip.Prefix, proto uint8) error {
	return c.sameAddr(ctx, index, p, c.newAddr(ctx, index, p, proto))
}

// delAddr deletes an address that carries our protocol. The kernel itself does
// not tell by the protocol: it would delete another's, too.
func (c *conn) delAddr(ctx context.Context, a state.Addr) error {
	index, err := c.index(ctx, a.Dev)
	if err != nil {
		return err
	}
	list, err := c.addrs(ctx, index)
	if err != nil || !slices.Contains(list, Addr{Index: index, Prefix: a.Prefix, Proto: state.RouteProtocol}) {
		return err
	}
	return c.execute(ctx, func(h *netlink.Handle) error {
		return h.AddrDel(nil, &netlink.Addr{IPNet: ipNet(a.Prefix), LinkIndex: index})
	})
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
