package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoRoute is wrapped by errors about a peer that this host has no route to.
var ErrNoRoute = errors.New("no route")

// defaultMTU is what is left to assume where there is nothing to ask: Ethernet's
// (RFC 894).
const defaultMTU = 1500

// UnderlayMTU returns the least MTU on the way from self, the tunnels' source
// address, to the peers: of the links that their routes leave by, all of a
// multipath route's, and of the routes themselves where they have one. What the
// kernel has learned of a path and will forget again does not count.
//
// unreachable are the peers without a route; they do not count. Where none is
// left, or there are none, the MTU is that of the link with the address self,
// or else 1500 bytes. The error wraps ErrNoRoute and names every peer where
// none is left and no link has the address self.
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

// lesser is the less of two MTUs; 0 is none.
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

// Unrouted returns those of addrs that this host has no route to from self,
// the tunnels' source address; the zero Addr is any.
func Unrouted(ctx context.Context, self netip.Addr, addrs []netip.Addr) ([]netip.Addr, error) {
	return withConn(func(c *conn) ([]netip.Addr, error) {
		_, _, unreachable, err := c.waysTo(ctx, self, addrs)
		return unreachable, err
	})
}

// source is self where packets can have it as their source already, else the
// zero Addr: the kernel answers EINVAL to a look-up from another address than
// its own.
func (c *conn) source(ctx context.Context, self netip.Addr) netip.Addr {
	if !self.IsValid() {
		return self
	}
	if r, err := c.routeTo(ctx, self, netip.Addr{}); err != nil || r.Type != unix.RTN_LOCAL {
		return netip.Addr{}
	}
	return self
}

// routeTo looks up the route to an address, as the table has it. The error
// wraps ErrNoRoute where there is none, or one that says no.
func (c *conn) routeTo(ctx context.Context, to, source netip.Addr) (*netlink.Route, error) {
	opts := &netlink.RouteGetOptions{FIBMatch: true}
	if source.BitLen() == to.BitLen() {
		opts.SrcAddr = net.IP(source.AsSlice())
	}
	found, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Route, error) { return h.RouteGetWithOptions(to.AsSlice(), opts) })
	switch {
	case noRoute(err), err == nil && (len(found) == 0 || found[0].Type != unix.RTN_UNICAST && found[0].Type != unix.RTN_LOCAL):
		return nil, fmt.Errorf("%w to %s", ErrNoRoute, to)
	case err != nil:
		return nil, fmt.Errorf("route to %s: %w", to, err)
	}
	return &found[0], nil
}

// noRoute reports whether a lookup ended in nothing or in a route that says
// no: blackhole is EINVAL, prohibit EACCES (fib_props in net/ipv4).
func noRoute(err error) bool {
	for _, no := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.EACCES} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}
