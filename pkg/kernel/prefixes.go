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

// mostTables is how many routing tables Prefixes reads at most: a host with more
// is a router with one for each of its customers.
const mostTables = 16

// Prefix is a subnet that this host has on a link, or a route to, or the address of
// a route's next hop.
type Prefix struct {
	netip.Prefix
	// Link is the link of the address or of the next hop, or that of the route's first
	// next hop; "" is none, as of a blackhole.
	Link string
	// Addr is the link's address in the subnet; the zero Addr is a route.
	Addr netip.Addr
	// Src is the source address that the route prefers; the zero Addr is none.
	Src netip.Addr
	// Proto is the address's IFA_PROTO or the route's rtm_protocol, which tell who
	// made it; 0 is not known. The two have different values, except for
	// state.RouteProtocol.
	Proto int
	// Table is the route's table; 0 is an address.
	Table int

	text string
}

// String is the address or the route as "ip" prints it, and of a next hop also whose.
func (p Prefix) String() string { return p.text }

// Prefixes lists the subnets of this host: those of the addresses of its links, up
// or not, and of its routes in the table main and in the tables that policy rules
// name, 16 tables at most, with these routes' next hops. It leaves out default routes
// (not their next hops), link-local, loopback and multicast subnets, and the table local. It reads every route of these tables,
// which is too slow for each ADD.
func Prefixes(ctx context.Context) ([]Prefix, error) {
	return withConn(func(c *conn) (list []Prefix, err error) {
		addrs, err := c.addrs(ctx, 0)
		for _, a := range addrs {
			p := Prefix{Prefix: a.Prefix.Masked(), Link: c.name(a.Index), Addr: a.Prefix.Addr(), Proto: int(a.Proto)}
			p.text = fmt.Sprintf("%s dev %s", a.Prefix, p.Link)
			list = append(list, p)
		}
		tables, err2 := c.tables(ctx)
		err = errors.Join(err, err2)
		for _, table := range tables {
			for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
				routes, err2 := c.routes(ctx, family, table, 0)
				err = errors.Join(err, err2)
				for i := range routes {
					list = append(list, c.prefixes(&routes[i])...)
				}
			}
		}
		return slices.DeleteFunc(list, func(p Prefix) bool {
			a := p.Prefix.Addr()
			return p.Bits() == 0 || a.IsLinkLocalUnicast() || a.IsLoopback() || a.IsMulticast()
		}), err
	})
}

// prefixes are a route's destination and next hops.
func (c *conn) prefixes(r *netlink.Route) []Prefix {
	p := Prefix{
		Prefix: prefix(r.Dst), Link: c.name(hops(r)[0].LinkIndex), Src: addrOf(r.Src),
		Proto: int(r.Protocol), Table: r.Table, text: c.text(r),
	}
	list := []Prefix{p}
	for _, h := range hops(r) {
		if a := via(h); a.IsValid() {
			p.Prefix, p.Link = netip.PrefixFrom(a, a.BitLen()), c.name(h.LinkIndex)
			p.text = fmt.Sprintf("%s as the next hop of %s", a, list[0].text)
			list = append(list, p)
		}
	}
	return list
}

// tables are main and the tables that policy rules name, without local.
func (c *conn) tables(ctx context.Context) ([]int, error) {
	rules, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Rule, error) { return h.RuleList(netlink.FAMILY_ALL) })
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // this kernel knows no policy
		return nil, fmt.Errorf("policy rules: %w", err)
	}
	tables := []int{unix.RT_TABLE_MAIN}
	for _, r := range rules {
		if r.Table > 0 && r.Table != unix.RT_TABLE_LOCAL && !slices.Contains(tables, r.Table) && len(tables) < mostTables {
			tables = append(tables, r.Table)
		}
	}
	return tables, nil
}
