package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
)

// unroutedGrace is how long a peer that is stored may be without a route before it is
// left out: a link that flaps takes the routes along.
const unroutedGrace = time.Minute

// An unroutedSince has the time since when each address has been without a route.
type unroutedSince map[netip.Addr]time.Time

// dropUnrouted leaves nodes out that this host has no route to from its own
// node's address, self: tunnels to them would carry nothing. A node that is
// new is left out at once, one that is stored already after a while, and not
// while there is no route to any: then it is this host that is cut off.
func (a *Agent) dropUnrouted(ctx context.Context, list *List, self netip.Addr, stored []config.Node) error {
	known := map[netip.Addr]bool{}
	for _, n := range stored {
		known[n.Address] = true
	}
	var addrs []netip.Addr
	for _, n := range list.Nodes {
		if n.Address != self {
			addrs = append(addrs, n.Address)
		}
	}
	unrouted, err := kernel.Unrouted(ctx, self, addrs)
	if err != nil {
		return err
	}
	out := a.absent.leaveOut(time.Now(), unrouted, known, len(unrouted) < len(addrs))
	if len(out) == 0 {
		return nil
	}
	all := list.Nodes
	list.Nodes, list.LeftOut = nil, maps.Clone(list.LeftOut)
	if list.LeftOut == nil {
		list.LeftOut = map[string]string{}
	}
	for _, n := range all {
		if out[n.Address] {
			list.LeftOut[n.Name] = fmt.Sprintf("this host has no route to its address %s", n.Address)
		} else {
			list.Nodes = append(list.Nodes, n)
		}
	}
	return nil
}

// leaveOut notes which addresses are without a route now and returns those to leave
// out. others: there are some with a route.
func (s unroutedSince) leaveOut(now time.Time, unrouted []netip.Addr, known map[netip.Addr]bool, others bool) map[netip.Addr]bool {
	was := maps.Clone(s)
	clear(s)
	out := map[netip.Addr]bool{}
	for _, a := range unrouted {
		since, ok := was[a]
		if !ok {
			since = now
		}
		s[a] = since
		if !known[a] || others && now.Sub(since) >= unroutedGrace {
			out[a] = true
		}
	}
	return out
}
