package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/state"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// metric6 is the metric that the kernel gives an IPv6 route that asks for 0
// (IP6_RT_PRIO_USER of linux/ipv6_route.h).
const metric6 = 1024

// hops are the next hops of a route.
func hops(r *netlink.Route) []*netlink.NexthopInfo {
	if len(r.MultiPath) > 0 {
		return r.MultiPath
	}
	return []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via, Flags: r.Flags}}
}

// via is the gateway of a next hop; the zero Addr is none.
func via(h *netlink.NexthopInfo) netip.Addr {
	if v, ok := h.Via.(*netlink.Via); ok {
		return addrOf(v.Addr)
	}
	return addrOf(h.Gw)
}

func onlink(h *netlink.NexthopInfo) bool { return h.Flags&int(netlink.FLAG_ONLINK) != 0 }

// newRoute is a route with one gateway, or none, for a request.
func newRoute(dst netip.Prefix, via netip.Addr, onlink bool) *netlink.Route {
	r := &netlink.Route{Dst: ipNet(dst), Type: unix.RTN_UNICAST, Scope: netlink.SCOPE_UNIVERSE}
	if via.Is6() && dst.Addr().Is4() {
		r.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: via.AsSlice()}
	} else {
		r.Gw = via.AsSlice()
	}
	if onlink {
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	if !via.IsValid() && dst.Addr().Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

// metric is the metric that the kernel gives a route that asks for m.
func metric(dst netip.Prefix, m int) int {
	if m == 0 && dst.Addr().Is6() {
		return metric6
	}
	return m
}

// routeTypes are the names of route types in "ip route".
var routeTypes = map[int]string{
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
	unix.RTN_THROW: "throw", unix.RTN_LOCAL: "local",
}

// text is the route as "ip route" prints it.
func (c *conn) text(r *netlink.Route) string {
	var b strings.Builder
	switch name, ok := routeTypes[r.Type]; {
	case ok:
		b.WriteString(name + " ")
	case r.Type != unix.RTN_UNICAST:
		fmt.Fprintf(&b, "type %d ", r.Type)
	}
	dst, list := prefix(r.Dst), hops(r)
	b.WriteString(dst.String())
	if len(list) == 1 {
		b.WriteString(c.hopText(list[0], dst))
	}
	if r.Table != unix.RT_TABLE_MAIN {
		fmt.Fprintf(&b, " table %d", r.Table)
	}
	fmt.Fprintf(&b, " proto %s", protoName(r.Protocol))
	if r.Src != nil {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	if r.Priority != 0 {
		fmt.Fprintf(&b, " metric %d", r.Priority)
	}
	if len(list) > 1 {
		for _, h := range list {
			b.WriteString(" nexthop" + c.hopText(h, dst))
		}
	}
	return b.String()
}

func (c *conn) hopText(h *netlink.NexthopInfo, dst netip.Prefix) string {
	var s string
	if a := via(h); a.IsValid() && a.Is4() != dst.Addr().Is4() {
		s = " via inet6 " + a.String()
	} else if a.IsValid() {
		s = " via " + a.String()
	}
	if h.LinkIndex != 0 {
		s += " dev " + cmp.Or(c.name(h.LinkIndex), fmt.Sprintf("if%d", h.LinkIndex))
	}
	if onlink(h) {
		s += " onlink"
	}
	return s
}

// protoName is the name that iproute2's rt_protos has for a protocol.
func protoName(p netlink.RouteProtocol) string {
	if p == state.RouteProtocol {
		return "ovs-gre"
	}
	return p.String()
}

// routes lists the routes of a family, in one table unless table is 0, of one
// protocol unless proto is 0.
func (c *conn) routes(ctx context.Context, family, table, proto int) ([]netlink.Route, error) {
	filter, mask := &netlink.Route{Table: table, Protocol: netlink.RouteProtocol(proto)}, netlink.RT_FILTER_TABLE
	if proto != 0 {
		mask |= netlink.RT_FILTER_PROTOCOL
	}
	found, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Route, error) {
		// With strict checks the kernel (4.20) sends only routes that pass the
		// filter. Most other requests of v1.3.1 fail with them.
		_ = h.SetStrictCheck(true)
		defer func() { _ = h.SetStrictCheck(false) }()
		return h.RouteListFiltered(family, filter, mask)
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // no such table yet, or no such family on this host
	}
	return found, wrap(fmt.Sprintf("routes of table %d", table), err)
}

// A routeQuery is one dump of routes.
type routeQuery struct{ family, table int }

// wantedRoutes are the wanted routes of a routeQuery.
type wantedRoutes map[state.ID]state.Route

// find returns the wanted route that has the same key in the kernel as r.
func (w wantedRoutes) find(r *netlink.Route) (state.Route, bool) {
	if r.Tos != 0 {
		return state.Route{}, false
	}
	id := state.Route{Dst: prefix(r.Dst), Table: r.Table, Metric: r.Priority}
	o, ok := w[id.ID()]
	if !ok && id.Dst.Addr().Is6() && r.Priority == metric6 {
		id.Metric = 0
		o, ok = w[id.ID()]
	}
	return o, ok
}

// routeQueries are the dumps that want and the scope need.
func (b *Backend) routeQueries(want state.Set) map[routeQuery]wantedRoutes {
	queries := map[routeQuery]wantedRoutes{}
	add := func(a netip.Addr, table int) wantedRoutes {
		q := routeQuery{family(a), table}
		if queries[q] == nil {
			queries[q] = wantedRoutes{}
		}
		return queries[q]
	}
	for id, o := range want {
		if r, ok := o.(state.Route); ok {
			add(r.Dst.Addr(), r.Table)[id] = r
		}
	}
	if b.scope.RouteTable != 0 {
		for _, src := range b.scope.RouteSources {
			add(src, b.scope.RouteTable)
		}
	}
	return queries
}

// observeRoutes adds the network's routes, and foreign ones that take the place of
// a wanted one.
func (b *Backend) observeRoutes(ctx context.Context, c *conn, want, have state.Set) error {
	for q, wanted := range b.routeQueries(want) {
		ours, err := c.routes(ctx, q.family, q.table, state.RouteProtocol)
		if err != nil {
			return err
		}
		for i := range ours {
			r := &ours[i]
			w, ok := wanted.find(r)
			if ok && b.own(r, w) || !ok && slices.Contains(b.scope.RouteSources, addrOf(r.Src)) {
				have.Put(c.observed(ctx, r, w))
			}
		}
		if err := b.inTheWay(ctx, c, q, wanted, have); err != nil {
			return err
		}
	}
	return nil
}

// inTheWay adds the foreign routes that take the place of wanted ones. Where
// all wanted ones are there, nothing is in the way of anything.
func (b *Backend) inTheWay(ctx context.Context, c *conn, q routeQuery, wanted wantedRoutes, have state.Set) error {
	missing := map[netip.Prefix]bool{}
	for id, w := range wanted {
		if have[id] != w {
			missing[w.Dst] = true
		}
	}
	if len(missing) == 0 {
		return nil
	}
	all, err := c.routes(ctx, q.family, q.table, 0)
	if err != nil {
		return err
	}
	for i := range all {
		r := &all[i]
		if !missing[prefix(r.Dst)] {
			continue
		}
		if w, ok := wanted.find(r); ok && !b.own(r, w) {
			have.Put(state.Foreign{Want: w, Have: c.text(r)})
		}
	}
	return nil
}

// own reports whether a route that is where w should be is the network's: it
// carries our protocol, and no other network's source. One with several next
// hops is not, or not alone: IPv6 makes one route of ours and another's that
// was appended to it.
func (b *Backend) own(r *netlink.Route, w state.Route) bool {
	if r.Protocol != state.RouteProtocol || len(r.MultiPath) > 1 {
		return false
	}
	src := addrOf(r.Src)
	return !src.IsValid() || src == w.Src || slices.Contains(b.scope.RouteSources, src)
}

// observed is the route as an object. w is the wanted one that it is, if any.
func (c *conn) observed(ctx context.Context, r *netlink.Route, w state.Route) state.Route {
	h := hops(r)[0]
	o := state.Route{Dst: prefix(r.Dst), Via: via(h), Onlink: onlink(h), Src: addrOf(r.Src), Table: r.Table, Metric: r.Priority}
	if o.Dst.Addr().Is6() && o.Metric == metric6 && w.Metric != metric6 {
		o.Metric = 0
	}
	if w.Dev != "" || !w.Dst.IsValid() {
		o.Dev = c.name(h.LinkIndex)
	}
	return o
}

// kernelRoute is a route for a request.
func (c *conn) kernelRoute(ctx context.Context, o state.Route) (r *netlink.Route, err error) {
	r = newRoute(o.Dst, o.Via, o.Onlink)
	r.Src, r.Table, r.Priority, r.Protocol = o.Src.AsSlice(), o.Table, metric(o.Dst, o.Metric), state.RouteProtocol
	if o.Dev != "" {
		r.LinkIndex, err = c.index(ctx, o.Dev)
	}
	return r, err
}

// putRoute adds a route, or replaces one of ours. EEXIST is a foreign route that
// has come in between.
func (c *conn) putRoute(ctx context.Context, o state.Route, replace bool) error {
	r, err := c.kernelRoute(ctx, o)
	if err != nil {
		return err
	}
	err = c.execute(ctx, func(h *netlink.Handle) error {
		if replace {
			return h.RouteReplace(r)
		}
		return h.RouteAdd(r)
	})
	if errors.Is(err, unix.EINVAL) && o.Via.IsValid() {
		return c.nextHopError(ctx, o.Via, err)
	}
	return err
}

// nextHopError returns why the kernel takes no route by an address, or err. It wraps
// config.ErrInvalid where the address is no other host's.
func (c *conn) nextHopError(ctx context.Context, via netip.Addr, err error) error {
	r, err2 := c.lookup(ctx, via, netip.Addr{}, 0)
	switch {
	case err2 != nil:
	case r.Type == unix.RTN_LOCAL:
		return fmt.Errorf("%w: its next hop %s is an address of this host itself", config.ErrInvalid, via)
	case r.Type == unix.RTN_BROADCAST:
		return fmt.Errorf("%w: its next hop %s is a broadcast address of this host's link", config.ErrInvalid, via)
	}
	return err
}

// delRoute deletes a route. The request names all its attributes, so that it fits
// no other route.
func (c *conn) delRoute(ctx context.Context, o state.Route) error {
	r, err := c.kernelRoute(ctx, o)
	if err != nil {
		return err
	}
	r.Type, r.Scope, r.Flags = 0, netlink.SCOPE_NOWHERE, 0
	return c.execute(ctx, func(h *netlink.Handle) error { return h.RouteDel(r) })
}
