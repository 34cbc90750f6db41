package kernel

import (
	"cmp"
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
	// Onlink: the next hop counts as reachable by the link without a route to it.
	Onlink bool
	// MTU and AdvMSS are the route's, in bytes; 0 is none.
	MTU, AdvMSS int
	// Priority is the route's metric; 0 is the kernel's default.
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

// lib is the route as the library has it.
func (r ContainerRoute) lib(index int) *netlink.Route {
	k := newRoute(r.Dst.Masked(), r.Via, r.Onlink)
	k.LinkIndex, k.MTU, k.AdvMSS = index, r.MTU, r.AdvMSS
	k.Table, k.Priority = cmp.Or(r.Table, unix.RT_TABLE_MAIN), metric(r.Dst, r.Priority)
	k.Protocol = unix.RTPROT_BOOT // as if a person had typed it
	if r.Dst.Addr().Is4() {
		k.Scope = cmp.Or(netlink.Scope(r.Scope), k.Scope)
	}
	return k
}

// containerRoute is the reverse of ContainerRoute.lib.
func containerRoute(r *netlink.Route) ContainerRoute {
	h := hops(r)[0]
	return ContainerRoute{
		Dst: prefix(r.Dst), Via: via(h), Onlink: onlink(h), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table,
		Scope: int(r.Scope),
	}.canonical()
}

func (r ContainerRoute) String() string {
	s := r.Dst.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	return s
}

// ContainerLink is a container's interface with its addresses and routes.
type ContainerLink struct {
	Link
	// Addrs with their prefix lengths, link-local ones included.
	Addrs []netip.Prefix
	// Routes that leave by the interface, in all tables but local, with those that
	// the kernel made. Fields that have the default are zero.
	Routes []ContainerRoute
}

// Configure takes a link of the namespace up and gives it addresses and routes.
// Routes without next hop go first, because others may need them. Addresses and
// routes that are there already are fine; a different route of the same
// destination, table and metric is an error that wraps fs.ErrExist.
func (n *Netns) Configure(ctx context.Context, ifName string, addrs []netip.Prefix, routes []ContainerRoute) error {
	return n.with(func(c *conn) error {
		index, err := c.index(ctx, ifName)
		if err != nil {
			return err
		}
		err = c.configure(ctx, index, addrs, routes)
		if slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }) && errors.Is(err, unix.EACCES) {
			// IPv6 is disabled on the link, perhaps by the runtime. An address that
			// is assigned is meant to be used.
			if err := n.Do(func() error { return writeSysctl("net/ipv6/conf/"+ifName+"/disable_ipv6", "0") }); err != nil {
				return fmt.Errorf("link %s: enable IPv6: %w", ifName, err)
			}
			err = c.configure(ctx, index, addrs, routes)
		}
		return wrap("interface "+ifName, err)
	})
}

// SetMTU changes the MTU of a link of the namespace.
func (n *Netns) SetMTU(ctx context.Context, ifName string, mtu int) error {
	return n.with(func(c *conn) error {
		index, err := c.index(ctx, ifName)
		if err == nil {
			err = c.execute(ctx, func(h *netlink.Handle) error { return h.LinkSetMTU(byIndex(index), mtu) })
		}
		return wrap(fmt.Sprintf("interface %s: MTU %d", ifName, mtu), err)
	})
}

func (c *conn) configure(ctx context.Context, index int, addrs []netip.Prefix, routes []ContainerRoute) error {
	var errs []error
	if !c.up[index] {
		err := c.execute(ctx, func(h *netlink.Handle) error { return h.LinkSetUp(byIndex(index)) })
		errs, c.up[index] = append(errs, wrap("up", err)), err == nil
	}
	for _, p := range addrs {
		errs = append(errs, wrap("address "+p.String(), c.addAddr(ctx, index, p, 0)))
	}
	for _, hop := range []bool{false, true} {
		for _, r := range routes {
			if r.Via.IsValid() == hop {
				errs = append(errs, wrap("route "+r.String(), c.addRoute(ctx, r.lib(index))))
			}
		}
	}
	return errors.Join(errs...)
}

func (c *conn) addRoute(ctx context.Context, r *netlink.Route) error {
	err := c.execute(ctx, func(h *netlink.Handle) error { return h.RouteAdd(r) })
	if errors.Is(err, unix.EEXIST) {
		return c.sameRoute(ctx, r)
	}
	return err
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// sameRoute returns nil if the existing route in the place of want has the same
// gateway and link, else an error that wraps EEXIST.
func (c *conn) sameRoute(ctx context.Context, want *netlink.Route) error {
	dst := prefix(want.Dst)
	list, err := c.routes(ctx, family(dst.Addr()), want.Table, 0)
	if err != nil {
		return err
	}
	in := "none is there now"
	for i := range list {
		r := &list[i]
		if prefix(r.Dst) != dst || r.Priority != want.Priority || r.Tos != 0 {
			continue
		}
		if have, want := hops(r)[0], hops(want)[0]; via(have) == via(want) && have.LinkIndex == want.LinkIndex {
			return nil
		}
		in = c.text(r)
	}
	return fmt.Errorf("%w: %s", unix.EEXIST, in)
}

// Inspect reads a link of the namespace. The error wraps fs.ErrNotExist where
// there is none.
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

// routesBy lists the routes by a link in all tables but local, which the kernel
// keeps itself.
func (c *conn) routesBy(ctx context.Context, index int) ([]ContainerRoute, error) {
	var list []ContainerRoute
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := c.routes(ctx, family, unix.RT_TABLE_UNSPEC, 0)
		if err != nil {
			return nil, err
		}
		for i := range routes {
			r := &routes[i]
			if hops(r)[0].LinkIndex == index && r.Type == unix.RTN_UNICAST && r.Table != unix.RT_TABLE_LOCAL {
				list = append(list, containerRoute(r))
			}
		}
	}
	return list, nil
}
