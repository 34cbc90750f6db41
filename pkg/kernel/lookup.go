package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// manyLookups is how many routes are looked up by the kernel, one request each.
// For more, all routes are read once and looked up here: 5,000 requests took 60 ms.
const manyLookups = 32

// maxTable is how many routes may be on the host for that.
const maxTable = 4096

// fewRoutes is up to how many routes it does not pay to find out which of them lead to
// none of thousands of addresses.
const fewRoutes = 64

// A routingTable finds routes as the kernel does that has no rules but its own:
// by the tables local, main and default. Of many it has those that lead to an address
// that it was made for.
type routingTable [3][]tableRoute

// A tableRoute is a route with its destination.
type tableRoute struct {
	dst netip.Prefix
	*netlink.Route
}

// ownRules are the tables of the kernel's initial rules, by priority
// (fib_default_rules_init in net/ipv4/fib_rules.c and net/ipv6/fib6_rules.c).
var ownRules = map[int]int{0: unix.RT_TABLE_LOCAL, 32766: unix.RT_TABLE_MAIN, 32767: unix.RT_TABLE_DEFAULT}

// routingTable reads the routes to addresses of a family. ok is false where the
// host has other policy rules or more than maxTable routes: the kernel must look
// routes up there.
func (c *conn) routingTable(ctx context.Context, family int, to []netip.Addr) (t routingTable, ok bool, err error) {
	rules, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Rule, error) { return h.RuleList(family) })
	if err != nil {
		return t, false, fmt.Errorf("rules: %w", err)
	}
	for _, r := range rules {
		// Where the kernel leaves a number out, the library has -1.
		if ownRules[max(r.Priority, 0)] != r.Table || r.Table == 0 || r.Src != nil || r.Dst != nil || r.IifName != "" || r.OifName != "" ||
			r.Mark != 0 || r.Tos != 0 || r.Invert || r.IPProto != 0 || r.Sport != nil || r.Dport != nil || r.UIDRange != nil ||
			r.SuppressPrefixlen >= 0 || r.SuppressIfgroup >= 0 || r.Goto >= 0 {
			return t, false, nil
		}
	}
	list, err := c.routes(ctx, family, 0, 0)
	if err != nil || len(list) > maxTable {
		return t, false, err
	}
	wanted := near(to)
	if len(list) > fewRoutes {
		wanted = holders(to)
	}
	for i := range list {
		r := &list[i]
		dst := prefix(r.Dst)
		if at := indexOfTable(r.Table); at >= 0 && r.Tos == 0 && wanted(dst) {
			t[at] = append(t[at], tableRoute{dst, r})
		}
	}
	return t, true, nil
}

// near returns a function that reports whether a destination is among the addresses, or
// holds them: it may hold none.
func near(to []netip.Addr) func(dst netip.Prefix) bool {
	first, last := to[0], to[0]
	for _, a := range to {
		if a.Less(first) {
			first = a
		} else if last.Less(a) {
			last = a
		}
	}
	return func(dst netip.Prefix) bool {
		a := dst.Masked().Addr()
		return dst.Contains(first) || !a.Less(first) && !last.Less(a)
	}
}

// holders returns a function that reports whether a destination holds one of the
// addresses.
func holders(of []netip.Addr) func(dst netip.Prefix) bool {
	single := make([]netip.Prefix, len(of)) // sorted by code that a plugin has already
	for i, a := range of {
		single[i] = netip.PrefixFrom(a, a.BitLen())
	}
	slices.SortFunc(single, netip.Prefix.Compare)
	return func(dst netip.Prefix) bool {
		first, _ := slices.BinarySearchFunc(single, netip.PrefixFrom(dst.Masked().Addr(), dst.Addr().BitLen()), netip.Prefix.Compare)
		return first < len(single) && dst.Contains(single[first].Addr())
	}
}

func indexOfTable(table int) int {
	switch table {
	case unix.RT_TABLE_LOCAL:
		return 0
	case unix.RT_TABLE_MAIN:
		return 1
	case unix.RT_TABLE_DEFAULT:
		return 2
	}
	return -1
}

// routeTo is as conn.routeTo.
func (t routingTable) routeTo(to netip.Addr) (*netlink.Route, error) {
	for _, table := range t {
		var best *tableRoute
		for i := range table {
			r := &table[i]
			if r.dst.Contains(to) && (best == nil || r.dst.Bits() > best.dst.Bits() ||
				r.dst.Bits() == best.dst.Bits() && r.Priority < best.Priority) {
				best = r
			}
		}
		if best == nil || best.Type == unix.RTN_THROW {
			continue // the next table
		}
		if best.Type == unix.RTN_UNICAST || best.Type == unix.RTN_LOCAL {
			return best.Route, nil
		}
		break
	}
	return nil, fmt.Errorf("%w to %s", ErrNoRoute, to)
}
