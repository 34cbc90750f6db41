package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ContainerRoute is a route inside a container.
type ContainerRoute struct {
	Dst netip.Prefix
	// Via is the next hop; the zero Addr means on-link.
	Via netip.Addr
	// Onlink: the next hop is on the link although no address says so.
	Onlink bool
	// MTU and AdvMSS are the route's metrics; 0 is none.
	MTU, AdvMSS int
	// Priority is the route's metric; 0 is the kernel's own.
	Priority int
	// Table is the routing table's number; 0 is main.
	Table int
	// Scope is the number of the route's scope; 0 is link for an IPv4 route
	// without next hop, else global. IPv6 has none.
	Scope int
}

// canonical gives defaults their zero values.
func (r ContainerRoute) canonical() ContainerRoute {
	r.Dst = r.Dst.Masked()
	if r.Table == unix.RT_TABLE_MAIN {
		r.Table = 0
	}
	if r.Dst.Addr().Is6() {
		r.Scope = 0
		if r.Priority == metric6 {
			r.Priority = 0
		}
	}
	if !r.Via.IsValid() && r.Scope == unix.RT_SCOPE_LINK {
		r.Scope = 0
	}
	return r
}

// route is the route as rtnetlink has it.
func (r ContainerRoute) route(index int) route {
	r = r.canonical()
	k := route{
		hop: hop{via: r.Via, oif: index, onlink: r.Onlink}, dst: r.Dst, table: r.Table, metric: r.Priority,
		mtu: r.MTU, advMSS: r.AdvMSS, scope: r.Scope,
		// As if a person had typed it.
		proto: unix.RTPROT_BOOT, typ: unix.RTN_UNICAST,
	}
	if k.table == 0 {
		k.table = unix.RT_TABLE_MAIN
	}
	if k.metric == 0 && r.Dst.Addr().Is6() {
		k.metric = metric6
	}
	if k.scope == 0 && !r.Via.IsValid() && r.Dst.Addr().Is4() {
		k.scope = unix.RT_SCOPE_LINK
	}
	return k
}

// containerRoute is the reverse of ContainerRoute.route.
func containerRoute(r route) ContainerRoute {
	return ContainerRoute{
		Dst: r.dst, Via: r.via, Onlink: r.onlink, MTU: r.mtu, AdvMSS: r.advMSS, Priority: r.metric, Table: r.table, Scope: r.scope,
	}.canonical()
}

func (r ContainerRoute) String() string {
	s := r.Dst.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	return s
}

// ContainerLink is what a container's interface is like.
type ContainerLink struct {
	Link
	// Addrs with their prefix lengths, link-local ones included.
	Addrs []netip.Prefix
	// Routes that leave by the interface, those of the kernel included, with
	// defaults as zero values.
	Routes []ContainerRoute
}

// Configure takes a link of the namespace up and gives it addresses and
// routes. Routes without next hop go first, because others may need them. What
// is there already is fine; a route whose place another takes is an error that
// wraps fs.ErrExist.
func (n *Netns) Configure(ctx context.Context, ifName string, addrs []netip.Prefix, routes []ContainerRoute) error {
	return n.with(func(c *conn) error {
		index, err := c.index(ctx, ifName)
		if err != nil {
			return err
		}
		err = c.configure(ctx, index, addrs, routes)
		if slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }) && errors.Is(err, unix.EACCES) {
			// IPv6 is disabled on the link. The runtime may have done so, but
			// who assigns an address wants it used.
			if err := n.do(func() error { return writeSysctl("net/ipv6/conf/"+ifName+"/disable_ipv6", "0") }); err != nil {
				return fmt.Errorf("link %s: enable IPv6: %w", ifName, err)
			}
			err = c.configure(ctx, index, addrs, routes)
		}
		return wrap("interface "+ifName, err)
	})
}

func (c *conn) configure(ctx context.Context, index int, addrs []netip.Prefix, routes []ContainerRoute) error {
	var errs []error
	if !c.up[index] {
		err := c.execute(ctx, func(h *netlink.Handle) error { return h.LinkSetUp(byIndex(index)) })
		errs, c.up[index] = append(errs, wrap("up", err)), err == nil
	}
	for _, p := range addrs {
		err := c.execute(ctx, func(h *netlink.Handle) error { return h.AddrAdd(nil, libAddr(index, p)) })
		errs = append(errs, wrap("address "+p.String(), c.sameAddr(ctx, index, p, err)))
	}
	for _, hop := range []bool{false, true} {
		for _, r := range routes {
			if r.Via.IsValid() == hop {
				errs = append(errs, wrap("route "+r.String(), c.addRoute(ctx, r.route(index))))
			}
		}
	}
	return errors.Join(errs...)
}

func (c *conn) addRoute(ctx context.Context, k route) error {
	err := c.execute(ctx, func(h *netlink.Handle) error { return h.RouteAdd(k.lib()) })
	if errors.Is(err, unix.EEXIST) {
		return c.sameRoute(ctx, k)
	}
	return err
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// sameRoute says whether the route that takes the place of one leads the same
// way.
func (c *conn) sameRoute(ctx context.Context, want route) error {
	list, err := c.routes(ctx, family(want.dst.Addr()), want.table, 0)
	if err != nil {
		return err
	}
	in := "none is there now"
	for _, r := range list {
		if r.dst != want.dst || r.metric != want.metric || r.tos != 0 {
			continue
		}
		if r.via == want.via && r.oif == want.oif {
			return nil
		}
		in = r.text(ctx, c)
	}
	return fmt.Errorf("%w: %s", unix.EEXIST, in)
}

// Inspect reads what a link of the namespace is like. The error wraps
// fs.ErrNotExist where there is none.
func (n *Netns) Inspect(ctx context.Context, ifName string) (ContainerLink, error) {
	var l ContainerLink
	err := n.with(func(c *conn) (err error) {
		if l.Link, err = c.link(ctx, ifName); err != nil {
			return err
		}
		addrs, err := c.addrs(ctx, l.Index)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			l.Addrs = append(l.Addrs, a.Prefix)
		}
		l.Routes, err = c.routesBy(ctx, l.Index)
		return err
	})
	return l, err
}

// routesBy lists the routes by a link in all tables but local, whose routes
// are the kernel's bookkeeping.
func (c *conn) routesBy(ctx context.Context, index int) ([]ContainerRoute, error) {
	var list []ContainerRoute
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := c.routes(ctx, family, unix.RT_TABLE_UNSPEC, 0)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if r.oif == index && r.typ == unix.RTN_UNICAST && r.table != unix.RT_TABLE_LOCAL {
				list = append(list, containerRoute(r))
			}
		}
	}
	return list, nil
}
