package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/state"

	"golang.org/x/sys/unix"
)

const (
	// metric6 is what the kernel makes of an IPv6 route's metric 0
	// (IP6_RT_PRIO_USER of linux/ipv6_route.h).
	metric6 = 1024
	// rtaNhID is RTA_NH_ID of linux/rtnetlink.h: the route's next hop is an
	// object of its own.
	rtaNhID = 30
)

// route is a route as rtnetlink has it.
type route struct {
	hop
	dst          netip.Prefix
	src          netip.Addr
	table        int
	metric       int // IPv6: as the kernel has it, 1024 by default
	proto        uint8
	typ          uint8
	scope        uint8
	tos          uint8
	cached       bool
	mtu, advMSS  int
	nexthopID    int
	moreHops     []hop // the rest of a multipath route
	cacheExpires int   // when the kernel learned the metrics and will forget them
}

// hop is one next hop.
type hop struct {
	via    netip.Addr
	oif    int
	onlink bool
}

func (h hop) message(m message, family4 bool) message {
	switch {
	case !h.via.IsValid():
	case family4 && h.via.Is6():
		via := ne.AppendUint16(nil, unix.AF_INET6)
		m = m.attr(unix.RTA_VIA, append(via, h.via.AsSlice()...))
	default:
		m = m.addr(unix.RTA_GATEWAY, h.via)
	}
	if h.oif != 0 {
		m = m.u32(unix.RTA_OIF, h.oif)
	}
	return m
}

func (r route) message(typ, flags uint16) message {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1], h[5], h[6], h[7] = family(r.dst.Addr()), uint8(r.dst.Bits()), r.proto, r.scope, r.typ
	if r.table < 256 {
		h[4] = uint8(r.table) // else RT_TABLE_UNSPEC
	}
	if r.onlink {
		ne.PutUint32(h[8:], unix.RTNH_F_ONLINK)
	}
	m := newMessage(typ, flags, h).u32(unix.RTA_TABLE, r.table)
	if r.dst.Bits() > 0 {
		m = m.addr(unix.RTA_DST, r.dst.Addr())
	}
	m = r.hop.message(m, r.dst.Addr().Is4())
	if r.src.IsValid() {
		m = m.addr(unix.RTA_PREFSRC, r.src)
	}
	if r.metric != 0 {
		m = m.u32(unix.RTA_PRIORITY, r.metric)
	}
	if r.mtu != 0 || r.advMSS != 0 {
		m = m.nest(unix.RTA_METRICS, func(m message) message {
			if r.mtu != 0 {
				m = m.u32(unix.RTAX_MTU, r.mtu)
			}
			if r.advMSS != 0 {
				m = m.u32(unix.RTAX_ADVMSS, r.advMSS)
			}
			return m
		})
	}
	return m
}

func parseRoute(b []byte) (route, bool) {
	if len(b) < unix.SizeofRtMsg {
		return route{}, false
	}
	flags := ne.Uint32(b[8:])
	r := route{tos: b[3], table: int(b[4]), proto: b[5], scope: b[6], typ: b[7], cached: flags&unix.RTM_F_CLONED != 0}
	r.onlink = flags&unix.RTNH_F_ONLINK != 0
	dst := netip.IPv4Unspecified()
	if b[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	for typ, v := range attrs(b[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_DST:
			dst = getAddr(v)
		case unix.RTA_PREFSRC:
			r.src = getAddr(v)
		case unix.RTA_PRIORITY:
			r.metric = getU32(v)
		case unix.RTA_TABLE:
			r.table = getU32(v)
		case rtaNhID:
			r.nexthopID = getU32(v)
		case unix.RTA_METRICS:
			r.parseMetrics(v)
		case unix.RTA_CACHEINFO:
			if len(v) >= 12 { // struct rta_cacheinfo: clntref, lastuse, expires
				r.cacheExpires = int(int32(ne.Uint32(v[8:])))
			}
		case unix.RTA_MULTIPATH:
			r.moreHops = parseHops(v)
		default:
			r.hop.parse(typ, v)
		}
	}
	if len(r.moreHops) > 0 {
		r.hop, r.moreHops = r.moreHops[0], r.moreHops[1:]
	}
	r.dst = netip.PrefixFrom(dst, int(b[1]))
	return r, (b[0] == unix.AF_INET || b[0] == unix.AF_INET6) && r.dst.IsValid()
}

func (h *hop) parse(typ uint16, v []byte) {
	switch typ {
	case unix.RTA_GATEWAY:
		h.via = getAddr(v)
	case unix.RTA_VIA:
		if len(v) > 2 {
			h.via = getAddr(v[2:])
		}
	case unix.RTA_OIF:
		h.oif = getU32(v)
	}
}

func (r *route) parseMetrics(b []byte) {
	for typ, v := range attrs(b) {
		switch typ {
		case unix.RTAX_MTU:
			r.mtu = getU32(v)
		case unix.RTAX_ADVMSS:
			r.advMSS = getU32(v)
		}
	}
}

// parseHops reads a list of struct rtnexthop, each with attributes.
func parseHops(b []byte) []hop {
	var hops []hop
	for len(b) >= unix.SizeofRtNexthop {
		n := int(ne.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		h := hop{oif: getU32(b[4:]), onlink: b[2]&unix.RTNH_F_ONLINK != 0}
		for typ, v := range attrs(b[unix.SizeofRtNexthop:n]) {
			h.parse(typ, v)
		}
		hops = append(hops, h)
		b = b[min(align4(n), len(b)):]
	}
	return hops
}

// text is the route as "ip route" prints it.
func (r route) text(c *conn) string {
	var b strings.Builder
	types := map[uint8]string{unix.RTN_UNICAST: "", unix.RTN_BLACKHOLE: "blackhole ", unix.RTN_UNREACHABLE: "unreachable ", unix.RTN_PROHIBIT: "prohibit ", unix.RTN_THROW: "throw ", unix.RTN_LOCAL: "local "}
	if s, ok := types[r.typ]; ok {
		b.WriteString(s)
	} else {
		fmt.Fprintf(&b, "type %d ", r.typ)
	}
	b.WriteString(r.dst.String())
	if r.nexthopID != 0 {
		fmt.Fprintf(&b, " nhid %d", r.nexthopID)
	}
	if len(r.moreHops) == 0 {
		b.WriteString(r.hop.text(c, r.dst))
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
		for _, h := range append([]hop{r.hop}, r.moreHops...) {
			b.WriteString(" nexthop" + h.text(c, r.dst))
		}
	}
	return b.String()
}

func (h hop) text(c *conn, dst netip.Prefix) string {
	var s string
	if h.via.IsValid() && h.via.Is4() != dst.Addr().Is4() {
		s = " via inet6 " + h.via.String()
	} else if h.via.IsValid() {
		s = " via " + h.via.String()
	}
	if h.oif != 0 {
		name := c.name(h.oif)
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
func protoName(p uint8) string {
	names := map[uint8]string{
		unix.RTPROT_UNSPEC: "unspec", unix.RTPROT_REDIRECT: "redirect", unix.RTPROT_KERNEL: "kernel", unix.RTPROT_BOOT: "boot",
		unix.RTPROT_STATIC: "static", unix.RTPROT_RA: "ra", unix.RTPROT_DHCP: "dhcp", unix.RTPROT_ZEBRA: "zebra",
		unix.RTPROT_BIRD: "bird", unix.RTPROT_BGP: "bgp", unix.RTPROT_OSPF: "ospf", state.RouteProtocol: "ovs-gre",
	}
	if s, ok := names[p]; ok {
		return s
	}
	return fmt.Sprint(p)
}

// routes lists the routes of a family in a table, of one protocol unless
// proto is 0, without what the kernel caches.
func (c *conn) routes(ctx context.Context, family uint8, table int, proto uint8) ([]route, error) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[5] = family, proto
	bodies, err := c.dump(ctx, newMessage(unix.RTM_GETROUTE, 0, h).u32(unix.RTA_TABLE, table))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // no such table yet, or no such family on this host
	}
	if err != nil {
		return nil, fmt.Errorf("routes of table %d: %w", table, err)
	}
	list := make([]route, 0, len(bodies))
	for _, b := range bodies {
		r, ok := parseRoute(b)
		if ok && !r.cached && r.table == table && (proto == 0 || proto == r.proto) {
			list = append(list, r)
		}
	}
	return list, nil
}

// A routeQuery is what one dump is about.
type routeQuery struct {
	family uint8
	table  int
}

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
				have.Put(observed(c, r, w))
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
			have.Put(state.Foreign{Want: w, Have: r.text(c)})
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
func observed(c *conn, r route, w state.Route) state.Route {
	o := state.Route{Dst: r.dst, Via: r.via, Onlink: r.onlink, Src: r.src, Table: r.table, Metric: r.metric}
	if r.dst.Addr().Is6() && r.metric == metric6 && w.Metric != metric6 {
		o.Metric = 0
	}
	if w.Dev != "" || !w.Dst.IsValid() {
		o.Dev = c.name(r.oif)
	}
	return o
}

// kernelRoute is a route for a message.
func kernelRoute(c *conn, o state.Route) (route, error) {
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
		r.oif, err = c.index(o.Dev)
	}
	return r, err
}

// newRoute takes the place of ours, or a free one: a foreign route that came
// meanwhile is answered with EEXIST.
func newRoute(c *conn, o state.Route, replace bool) (message, error) {
	r, err := kernelRoute(c, o)
	if err != nil {
		return nil, err
	}
	if replace {
		return r.message(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE), nil
	}
	return r.message(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL), nil
}

// delRoute names all that we know, so that no other route fits. It is nil
// where the link is gone, and the route with it.
func delRoute(c *conn, o state.Route) (message, error) {
	r, err := kernelRoute(c, o)
	if errors.As(err, new(noLink)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.typ, r.scope, r.onlink = 0, unix.RT_SCOPE_NOWHERE, false
	return r.message(unix.RTM_DELROUTE, 0), nil
}
