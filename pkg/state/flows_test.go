package state_test

import (
	"slices"
	"testing"

	"ovs-gre-cni/pkg/openflow"
	"ovs-gre-cni/pkg/state"
)

// TestFlows: the table has as many flows as Count says, no two of them are for
// the same frames, and each peer that comes, goes or changes makes another cookie.
func TestFlows(t *testing.T) {
	cookies := map[uint64]int{}
	for _, underlay := range underlays {
		for _, families := range families {
			for nodes := range 12 {
				c, m := network(t, nodesJSON(nodes+1, underlay, families), `,"tunnel":{"ports":"one"}`)
				f, ok := state.Desired(c, m, 1400)[state.ID{Kind: state.KindFlows, Name: "obr0-t"}].(state.Flows)
				if !ok {
					t.Fatal("no table")
				}
				table := f.Table()
				if len(table) != f.Count() {
					t.Errorf("%d flows, Count says %d: %s", len(table), f.Count(), f.Peers)
				}
				type key struct {
					priority uint16
					openflow.Match
				}
				seen := map[key]bool{}
				for _, flow := range table {
					k := key{flow.Priority, flow.Match}
					if seen[k] {
						t.Errorf("twice: %s", flow)
					}
					seen[k] = true
				}
				if nodes > 0 {
					cookies[f.Cookie()]++
				}
			}
		}
	}
	if n := len(underlays) * len(families) * 11; len(cookies) != n {
		t.Errorf("%d cookies of %d tables", len(cookies), n)
	}
	for _, fan := range fans {
		c, m := fanNetwork(t, fan, "")
		f := state.Desired(c, m, 1400)[state.ID{Kind: state.KindFlows, Name: "obr0-t"}].(state.Flows)
		other := f
		other.Self = other.Self.Next()
		if n := len(f.Table()); n != f.Count() || cookies[f.Cookie()] > 0 || f.Cookie() == other.Cookie() {
			t.Errorf("%s: %d flows, Count says %d; cookie %x, of another host %x", fan, n, f.Count(), f.Cookie(), other.Cookie())
		}
		cookies[f.Cookie()]++
	}
	one, many := state.Flows{Bridge: "b"}, []int{}
	for flow := range slices.Values(one.Table()) {
		many = append(many, int(flow.Output))
	}
	if !slices.Equal(many, []int{0}) {
		t.Errorf("without peers: %v, want the one flow that drops", many)
	}
}
