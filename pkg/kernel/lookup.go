package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// manyLookups is how many routes are asked of the kernel one by one. Of more, all
// its routes are read once and looked up here: 5,000 questions took 60 ms.
const manyLookups = 32

// maxTable is how many routes are read at most in place of questions.
const maxTable = 4096

// A routingTable finds routes as the kernel does that has no rules but its own:
// by the tables local, main and default. It has those that lead to an address that
// it was made for.
type routingTable [3][]tableRoute

// A tableRoute is a route with its destination.
type tableRoute struct {
	dst netip.Prefix
	*netlink.Route
}

// ownRules are those that the kernel begins with, by priority (fib_default_rules_init
// in net/ipv4/fib_rules.c and net/ipv6/fib6_rules.c).
var ownRules = map[int]int{0: unix.RT_TABLE_LOCAL, 32766: unix.RT_TABLE_MAIN, 32767: unix.RT_TABLE_DEFAULT}

// routingTable reads the routes to addresses of a family. ok is false where rules
// decide by more than the destination, or there are many routes: then the kernel
// must be asked.
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
	single := make([]netip.Prefix, len(to)) // sorted by code that a plugin has already
	for i, a := range to {
		single[i] = netip.PrefixFrom(a, a.BitLen())
	}
	slices.SortFunc(single, netip.Prefix.Compare)
	for i := range list {
		r := &list[i]
		dst := prefix(r.Dst)
		first, _ := slices.BinarySearchFunc(single, netip.PrefixFrom(dst.Masked().Addr(), dst.Addr().BitLen()), netip.Prefix.Compare)
		if at := indexOfTable(r.Table); at >= 0 && r.Tos == 0 && first < len(single) && dst.Contains(single[first].Addr()) {
			t[at] = append(t[at], tableRoute{dst, r})
		}
	}
	return t, true, nil
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

// routeTo is conn.routeTo.
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
