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

// mostTables bounds what Prefixes reads: a host with more tables is a router
// with one for each of its customers.
const mostTables = 16

// Prefix is a network that this host has already, on a link or behind a route.
type Prefix struct {
	netip.Prefix
	// Link is the link that has the network or leads to it, the first of a
	// multipath route; "" is none, as of a blackhole.
	Link string
	// Addr is the link's address in the network; the zero Addr means that it is
	// a route's.
	Addr netip.Addr
	// Src is the source address that the route prefers; the zero Addr is none.
	Src netip.Addr
	// Proto says who made it: 0 nobody says, else as in IFA_PROTO or
	// rtm_protocol, which are different tables that agree on
	// state.RouteProtocol.
	Proto int
	// Table is the route's; 0 is an address's.
	Table int

	text string
}

// String is an address or a route as ip prints it.
func (p Prefix) String() string { return p.text }

// Prefixes lists the networks that this host has: by the addresses of its
// links, up or not, and by its routes in main and in the tables that policy
// rules name, the first 16 of them. It leaves out default routes, what is
// link-local or loopback, multicast, and the kernel's own table of local
// addresses. It reads every route of these tables: it is not for ADD.
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
					r := &routes[i]
					list = append(list, Prefix{
						Prefix: prefix(r.Dst), Link: c.name(hops(r)[0].LinkIndex), Src: addrOf(r.Src),
						Proto: int(r.Protocol), Table: r.Table, text: c.text(r),
					})
				}
			}
		}
		return slices.DeleteFunc(list, func(p Prefix) bool {
			a := p.Prefix.Addr()
			return p.Bits() == 0 || a.IsLinkLocalUnicast() || a.IsLoopback() || a.IsMulticast()
		}), err
	})
}

// tables are main and those that policy rules look into, without local.
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
