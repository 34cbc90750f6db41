package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoRoute is wrapped by errors about a peer that this host has no route to.
var ErrNoRoute = errors.New("no route")

// defaultMTU is assumed where no link tells an MTU: Ethernet's (RFC 894).
const defaultMTU = 1500

// UnderlayMTU returns the least MTU in bytes on the routes from self, the tunnels'
// source address, to the peers: of the links that the routes leave by, all of a
// multipath route's, and of the routes themselves where they have one. Path MTUs
// that the kernel has learned do not count, since it forgets them.
//
// Peers without a route do not count; they are unreachable. Where no other is
// left, the MTU is that of the link with the address self. If there is no such
// link, it is 1500 without peers; with peers the error wraps ErrNoRoute and names
// each of them.
func UnderlayMTU(ctx context.Context, self netip.Addr, peers []netip.Addr) (mtu int, unreachable []netip.Addr, err error) {
	err = doWithConn(func(c *conn) (err error) {
		var indexes []int
		if mtu, indexes, unreachable, err = c.waysTo(ctx, self, peers); err != nil {
			return err
		}
		if len(indexes) == 0 {
			if indexes, err = c.linksOfAddr(ctx, self); err != nil {
				return err
			}
			if len(indexes) == 0 && len(unreachable) > 0 {
				for _, a := range unreachable {
					err = errors.Join(err, fmt.Errorf("%w to %s", ErrNoRoute, a))
				}
				return err
			}
		}
		links, err := c.linksByIndex(ctx, indexes)
		for _, l := range links {
			mtu = lesser(mtu, l.MTU)
		}
		mtu = cmp.Or(mtu, defaultMTU)
		return err
	})
	return mtu, unreachable, err
}

// lesser is the lesser of two MTUs; 0 is none.
func lesser(a, b int) int {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

func (c *conn) linksOfAddr(ctx context.Context, self netip.Addr) (indexes []int, err error) {
	addrs, err := c.addrs(ctx, 0)
	for _, a := range addrs {
		if a.Prefix.Addr() == self {
			indexes = append(indexes, a.Index)
		}
	}
	return indexes, err
}

// waysTo returns the least MTU of the routes to the peers, 0 where none has
// one, and the links that they leave by.
func (c *conn) waysTo(ctx context.Context, self netip.Addr, peers []netip.Addr) (mtu int, links []int, barred []netip.Addr, err error) {
	source := c.source(ctx, self)
	way := func(to netip.Addr) (*netlink.Route, error) { return c.routeTo(ctx, to, source) }
	if len(peers) > manyLookups {
		if t, ok, err := c.routingTable(ctx, family(peers[0]), peers); err != nil {
			return 0, nil, nil, err
		} else if ok {
			ask := way
			way = func(to netip.Addr) (*netlink.Route, error) {
				if family(to) != family(peers[0]) {
					return ask(to)
				}
				return t.routeTo(to)
			}
		}
	}
	seen := map[int]bool{}
	for _, p := range peers {
		r, err := way(p)
		if errors.Is(err, ErrNoRoute) {
			barred = append(barred, p)
			continue
		}
		if err != nil {
			return 0, nil, nil, err
		}
		mtu = lesser(mtu, r.MTU)
		for _, h := range hops(r) {
			if !seen[h.LinkIndex] {
				links, seen[h.LinkIndex] = append(links, h.LinkIndex), true
			}
		}
	}
	return mtu, links, barred, nil
}

// Unrouted returns the addresses of addrs that this host has no route to from
// self, the tunnels' source address. The zero Addr as self leaves the source to the
// kernel.
func Unrouted(ctx context.Context, self netip.Addr, addrs []netip.Addr) ([]netip.Addr, error) {
	return withConn(func(c *conn) ([]netip.Addr, error) {
		_, _, unreachable, err := c.waysTo(ctx, self, addrs)
		return unreachable, err
	})
}

// source is self where it is an address of this host, else the zero Addr: the
// kernel answers EINVAL to a look-up from an address that it does not have.
func (c *conn) source(ctx context.Context, self netip.Addr) netip.Addr {
	if !self.IsValid() {
		return self
	}
	if r, err := c.routeTo(ctx, self, netip.Addr{}); err != nil || r.Type != unix.RTN_LOCAL {
		return netip.Addr{}
	}
	return self
}

// routeTo looks up the route to an address. The error wraps ErrNoRoute where there
// is none, or one that refuses.
func (c *conn) routeTo(ctx context.Context, to, source netip.Addr) (*netlink.Route, error) {
	if source.BitLen() != to.BitLen() {
		source = netip.Addr{}
	}
	r, err := c.lookup(ctx, to, source, 0)
	if err == nil && r.Type != unix.RTN_UNICAST && r.Type != unix.RTN_LOCAL {
		err = unix.ENETUNREACH
	}
	return r, lookupError(to, err)
}

// lookup asks for the route of a packet, of any type, that comes by the link
// with index in; 0 is a packet of the host's own. The error is the errno.
func (c *conn) lookup(ctx context.Context, to, from netip.Addr, in int) (*netlink.Route, error) {
	opts := &netlink.RouteGetOptions{FIBMatch: true, IifIndex: in}
	if from.IsValid() {
		opts.SrcAddr = from.AsSlice()
	}
	found, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Route, error) { return h.RouteGetWithOptions(to.AsSlice(), opts) })
	if err == nil && len(found) == 0 {
		err = unix.ENETUNREACH
	}
	if err != nil {
		return nil, err
	}
	return &found[0], nil
}

// lookupError is the error of lookup as ErrNoRoute, where there is no route or
// one that refuses: blackhole is EINVAL, prohibit EACCES (fib_props in net/ipv4).
func lookupError(to netip.Addr, err error) error {
	for _, no := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.EACCES} {
		if errors.Is(err, no) {
			return fmt.Errorf("%w to %s", ErrNoRoute, to)
		}
	}
	return wrap(fmt.Sprintf("route to %s", to), err)
}

// Egress lists the links by which this host sends packets from its address from to
// the address to: several of a multipath route, none where there is no route.
func Egress(ctx context.Context, from, to netip.Addr) ([]string, error) {
	return withConn(func(c *conn) (names []string, err error) {
		r, err := c.routeTo(ctx, to, c.source(ctx, from))
		if err != nil {
			return nil, ctx.Err()
		}
		for _, h := range hops(r) {
			names = append(names, c.name(h.LinkIndex))
		}
		return names, nil
	})
}
