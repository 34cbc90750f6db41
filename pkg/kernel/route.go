package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/state"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// metric6 is what the kernel makes of an IPv6 route's metric 0
// (IP6_RT_PRIO_USER of linux/ipv6_route.h).
const metric6 = 1024

// route is a route as rtnetlink has it.
type route struct {
	hop
	dst         netip.Prefix
	src         netip.Addr
	table       int
	metric      int // IPv6: as the kernel has it, 1024 by default
	proto       int
	typ         int
	scope       int
	tos         int
	mtu, advMSS int
	moreHops    []hop // the rest of a multipath route
}

// hop is one next hop.
type hop struct {
	via    netip.Addr
	oif    int
	onlink bool
}

// lib is the route as the library has it.
func (r route) lib() *netlink.Route {
	k := &netlink.Route{
		Dst: ipNet(r.dst), LinkIndex: r.oif, Src: r.src.AsSlice(), Table: r.table, Priority: r.metric,
		Protocol: netlink.RouteProtocol(r.proto), Type: r.typ, Scope: netlink.Scope(r.scope), MTU: r.mtu, AdvMSS: r.advMSS,
	}
	if r.via.Is6() && r.dst.Addr().Is4() {
		k.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: r.via.AsSlice()}
	} else {
		k.Gw = r.via.AsSlice()
	}
	if r.onlink {
		k.Flags = int(netlink.FLAG_ONLINK)
	}
	return k
}

// routeOf is the reverse of lib.
func routeOf(k netlink.Route) route {
	r := route{
		hop: hopOf(k.Gw, k.Via, k.LinkIndex, k.Flags), dst: prefix(k.Dst), src: addrOf(k.Src), table: k.Table, metric: k.Priority,
		proto: int(k.Protocol), typ: k.Type, scope: int(k.Scope), tos: k.Tos, mtu: k.MTU, advMSS: k.AdvMSS,
	}
	for _, h := range k.MultiPath {
		r.moreHops = append(r.moreHops, hopOf(h.Gw, h.Via, h.LinkIndex, h.Flags))
	}
	if len(r.moreHops) > 0 {
		r.hop, r.moreHops = r.moreHops[0], r.moreHops[1:]
	}
	return r
}

func hopOf(gw net.IP, via netlink.Destination, oif, flags int) hop {
	h := hop{via: addrOf(gw), oif: oif, onlink: flags&int(netlink.FLAG_ONLINK) != 0}
	if v, ok := via.(*netlink.Via); ok {
		h.via = addrOf(v.Addr)
	}
	return h
}

// hops are all next hops.
func (r route) hops() []hop { return append([]hop{r.hop}, r.moreHops...) }

// routeTypes are the names of the types that have one in "ip route".
var routeTypes = map[int]string{
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
	unix.RTN_THROW: "throw", unix.RTN_LOCAL: "local",
}

// text is the route as "ip route" prints it.
func (r route) text(ctx context.Context, c *conn) string {
	var b strings.Builder
	switch name, ok := routeTypes[r.typ]; {
	case ok:
		b.WriteString(name + " ")
	case r.typ != unix.RTN_UNICAST:
		fmt.Fprintf(&b, "type %d ", r.typ)
	}
	b.WriteString(r.dst.String())
	if len(r.moreHops) == 0 {
		b.WriteString(r.hop.text(ctx, c, r.dst))
	}
	if r.table != unix.RT_TABLE_MAIN {
		fmt.Fprintf(&b, " table %d", r.table)
	}
	fmt.Fprintf(&b, " proto %s", protoName(r.proto))
	if r.src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.src)
	}
	if r.metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.metric)
	}
	if len(r.moreHops) > 0 {
		for _, h := range r.hops() {
			b.WriteString(" nexthop" + h.text(ctx, c, r.dst))
		}
	}
	return b.String()
}

func (h hop) text(ctx context.Context, c *conn, dst netip.Prefix) string {
	var s string
	if h.via.IsValid() && h.via.Is4() != dst.Addr().Is4() {
		s = " via inet6 " + h.via.String()
	} else if h.via.IsValid() {
		s = " via " + h.via.String()
	}
	if h.oif != 0 {
		name := c.name(ctx, h.oif)
		if name == "" {
			name = fmt.Sprintf("if%d", h.oif)
		}
		s += " dev " + name
	}
	if h.onlink {
		s += " onlink"
	}
	return s
}

// protoName is the name that iproute2's rt_protos has for a protocol.
func protoName(p int) string {
	if p == state.RouteProtocol {
		return "ovs-gre"
	}
	return netlink.RouteProtocol(p).String()
}

// routes lists the routes of a family in a table, of one protocol unless proto
// is 0. Table 0 is all.
func (c *conn) routes(ctx context.Context, family, table, proto int) ([]route, error) {
	filter, mask := &netlink.Route{Table: table, Protocol: netlink.RouteProtocol(proto)}, netlink.RT_FILTER_TABLE
	if proto != 0 {
		mask |= netlink.RT_FILTER_PROTOCOL
	}
	found, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Route, error) {
		// Strictly asked, the kernel leaves out itself what was not asked for.
		// Kernels before 4.20 cannot. Most other requests of v1.3.1 fail so.
		_ = h.SetStrictCheck(true)
		defer func() { _ = h.SetStrictCheck(false) }()
		return h.RouteListFiltered(family, filter, mask)
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // no such table yet, or no such family on this host
	}
	if err != nil {
		return nil, fmt.Errorf("routes of table %d: %w", table, err)
	}
	list := make([]route, len(found))
	for i, k := range found {
		list[i] = routeOf(k)
	}
	return list, nil
}

// A routeQuery is what one dump is about.
type routeQuery struct{ family, table int }

// wantedRoutes are the routes of a query that are wanted.
type wantedRoutes map[state.ID]state.Route

// find returns the wanted route that r is, or whose place r takes.
func (w wantedRoutes) find(r route) (state.Route, bool) {
	if r.tos != 0 {
		return state.Route{}, false
	}
	id := state.Route{Dst: r.dst, Table: r.table, Metric: r.metric}
	o, ok := w[id.ID()]
	if !ok && r.dst.Addr().Is6() && r.metric == metric6 {
		id.Metric = 0
		o, ok = w[id.ID()]
	}
	return o, ok
}

// routeQueries are the dumps that want and the scope make necessary.
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

// observeRoutes adds the network's routes, and what is in the way of a wanted
// one.
func (b *Backend) observeRoutes(ctx context.Context, c *conn, want, have state.Set) error {
	for q, wanted := range b.routeQueries(want) {
		ours, err := c.routes(ctx, q.family, q.table, state.RouteProtocol)
		if err != nil {
			return err
		}
		for _, r := range ours {
			w, ok := wanted.find(r)
			if ok && b.own(r, w) || !ok && slices.Contains(b.scope.RouteSources, r.src) {
				have.Put(observed(ctx, c, r, w))
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
	for _, r := range all {
		if !missing[r.dst] {
			continue
		}
		if w, ok := wanted.find(r); ok && !b.own(r, w) {
			have.Put(state.Foreign{Want: w, Have: r.text(ctx, c)})
		}
	}
	return nil
}

// own reports whether a route that is where w should be is the network's: it
// carries our protocol, and no other network's source. One with several next
// hops is not, or not alone: IPv6 makes one route of ours and another's that
// was appended to it.
func (b *Backend) own(r route, w state.Route) bool {
	if r.proto != state.RouteProtocol || len(r.moreHops) > 0 {
		return false
	}
	return !r.src.IsValid() || r.src == w.Src || slices.Contains(b.scope.RouteSources, r.src)
}

// observed is the route as an object. w is the wanted one that it is, if any.
func observed(ctx context.Context, c *conn, r route, w state.Route) state.Route {
	o := state.Route{Dst: r.dst, Via: r.via, Onlink: r.onlink, Src: r.src, Table: r.table, Metric: r.metric}
	if r.dst.Addr().Is6() && r.metric == metric6 && w.Metric != metric6 {
		o.Metric = 0
	}
	if w.Dev != "" || !w.Dst.IsValid() {
		o.Dev = c.name(ctx, r.oif)
	}
	return o
}

// kernelRoute is a route for a request.
func (c *conn) kernelRoute(ctx context.Context, o state.Route) (route, error) {
	r := route{
		hop: hop{via: o.Via, onlink: o.Onlink}, dst: o.Dst, src: o.Src, table: o.Table, metric: o.Metric,
		proto: state.RouteProtocol, typ: unix.RTN_UNICAST, scope: unix.RT_SCOPE_UNIVERSE,
	}
	if !o.Via.IsValid() && o.Dst.Addr().Is4() {
		r.scope = unix.RT_SCOPE_LINK
	}
	if o.Dst.Addr().Is6() && r.metric == 0 {
		r.metric = metric6
	}
	var err error
	if o.Dev != "" {
		r.oif, err = c.index(ctx, o.Dev)
	}
	return r, err
}

// putRoute takes the place of ours, or a free one: a foreign route that came
// meanwhile is answered with EEXIST.
func (c *conn) putRoute(ctx context.Context, o state.Route, replace bool) error {
	r, err := c.kernelRoute(ctx, o)
	if err != nil {
		return err
	}
	return c.execute(ctx, func(h *netlink.Handle) error {
		if replace {
			return h.RouteReplace(r.lib())
		}
		return h.RouteAdd(r.lib())
	})
}

// delRoute names all that we know, so that no other route fits. Where the link
// is gone, the route is gone with it.
func (c *conn) delRoute(ctx context.Context, o state.Route) error {
	r, err := c.kernelRoute(ctx, o)
	if err != nil {
		return err
	}
	r.typ, r.scope, r.onlink = 0, unix.RT_SCOPE_NOWHERE, false
	return c.execute(ctx, func(h *netlink.Handle) error { return h.RouteDel(r.lib()) })
}
