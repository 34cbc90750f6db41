package state_test

import (
	"fmt"
	"net/netip"
	"testing"
	"unicode/utf8"

	"ovs-gre-cni/pkg/state"
)

// TestGroups: what many have in common is one sentence, in the place of the
// first; few are told one by one.
func TestGroups(t *testing.T) {
	var changes []state.Change
	tunnel := func(i int) state.Tunnel {
		return state.Tunnel{Network: "n", Name: fmt.Sprintf("ot%d", i), Peer: fmt.Sprintf("host%03d", i), Remote: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
	}
	changes = append(changes, state.Change{New: state.Link{Name: "obr0", Up: true}})
	for i := range 497 {
		changes = append(changes, state.Change{New: tunnel(497 - i)})
	}
	for i := range 4 {
		old := tunnel(500 + i)
		old.Key = "7"
		changes = append(changes, state.Change{Old: old, New: tunnel(500 + i)})
	}
	for i := range 3 {
		changes = append(changes, state.Change{Old: state.Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), 0}), 24), Table: 254}})
	}
	want := []string{
		"link obr0 is missing",
		"497 tunnels are missing: host001, host002 and 495 more",
		"4 tunnels differ in key: host500, host501 and 2 more",
		"route 192.168.0.0/24 is left over",
		"route 192.168.1.0/24 is left over",
		"route 192.168.2.0/24 is left over",
	}
	n := 0
	for i, g := range state.Groups(changes) {
		n += len(g.Changes)
		if i >= len(want) || g.Text != want[i] || utf8.RuneCountInString(g.Text) > 120 {
			t.Errorf("%d: %s", i, g.Text)
		}
	}
	if n != len(changes) {
		t.Errorf("%d of %d changes are told", n, len(changes))
	}
	if state.Groups(nil) != nil {
		t.Error("nothing is told")
	}
}
