package state_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/state"
	"ovs-gre-cni/test/golden"
)

func TestDiffText(t *testing.T) {
	m := netip.MustParseAddr
	p := netip.MustParsePrefix
	have, want := state.Set{}, state.Set{}
	want.Put(
		state.Route{Dst: p("192.168.2.0/24"), Dev: "obr0", Src: m("192.168.1.1"), Table: 254},
		state.Route{Dst: p("fd00:2::/64"), Via: m("fe80::1"), Dev: "obr0-t", Table: 254},
		state.Addr{Dev: "obr0", Prefix: p("192.168.1.1/24")},
		state.Bridge{Network: "n", Name: "obr0", HWAddr: "0a:58:c0:a8:01:01", MTU: 1462},
		state.Sysctl{Key: "net/ipv4/ip_forward", Value: "1"},
		state.Link{Name: "docker0", Up: true},
		state.Port{Network: "n", Name: "og1", Bridge: "obr0", ContainerID: "c1", IfName: "eth0", Protected: true},
		state.Forward{Network: "n", In: "obr0", From: "10.0.0.0/24"},
		state.Neigh{Dev: "obr0-t", IP: m("172.16.32.101"), MAC: "0a:58:ac:10:20:65"},
		state.Masquerade{Network: "n", Sources: "192.168.1.0/24", Excluded: "224.0.0.0/4"},
	)
	have.Put(
		state.Sysctl{Key: "net/ipv4/ip_forward", Value: "0"},
		state.Link{Name: "docker0"},
		state.Foreign{Want: want[state.ID{Kind: state.KindRoute, Name: "fd00:2::/64 table 254 metric 0"}], Have: "fd00:2::/64 via fe80::9 proto static"},
		state.Port{Network: "n", Name: "og1", Bridge: "obr0", ContainerID: "c1", IfName: "eth0", Protected: true, Error: "could not open\nnetwork device og1\x1b (No such device)"},
		// Left over, one of each kind that can be.
		state.Bridge{Network: "n", Name: "obr9", HWAddr: "0a:58:c0:a8:01:01", MTU: 1462},
		state.Bridge{Network: "n", Name: "obr9-t", PortOf: "obr9"},
		state.Tunnel{Network: "n", Name: "ot1", Bridge: "obr9", Type: "gre", Remote: m("172.16.32.101"), Key: "flow", Peer: "it's"},
		state.Port{Network: "n", Name: "og2", Bridge: "obr9", ContainerID: "c2", IfName: "eth0"},
		state.Addr{Dev: "obr9", Prefix: p("10.0.0.1/24")},
		state.Addr{Dev: "obr9", Prefix: p("fd00::1/64")},
		state.Neigh{Dev: "obr9-t", IP: m("172.16.32.101"), MAC: "0a:58:ac:10:20:65"},
		state.Route{Dst: p("10.2.0.0/24"), Via: m("fe80::1"), Dev: "obr9-t", Onlink: true, Src: m("10.0.0.1"), Table: 100, Metric: 7},
		state.Masquerade{Network: "old", Sources: "10.0.0.0/24,fd00::/64", Excluded: "224.0.0.0/4,ff00::/8"},
		state.Forward{Network: "old", In: "obr9", From: "10.9.0.0/24"},
		// Nobody wants it and it is not ours.
		state.Foreign{Want: state.Bridge{Name: "br-ex"}, Have: "a bridge of somebody else"},
	)
	var b strings.Builder
	for _, c := range state.Diff(want, have) {
		fmt.Fprintf(&b, "%s\n    %s\n", c, c.Drift())
	}
	golden.Compare(t, "testdata/diff.golden", b.String())
	if got := state.Diff(want, want); len(got) != 0 {
		t.Error("a set differs from itself:", got)
	}
	if got := state.Diff(nil, nil); len(got) != 0 {
		t.Error("nothing differs from nothing:", got)
	}
	f := state.Foreign{Want: state.Bridge{Name: "obr0"}, Have: "a bridge of network other"}
	if got, want := f.Noun()+": "+f.String(), "OVS bridge obr0: foreign: a bridge of network other"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// world is a machine that refuses what a real one would refuse.
type world state.Set

// apply makes one change, or says why a machine would not.
func (w world) apply(c state.Change) error {
	s := state.Set(w)
	var id state.ID
	if c.New != nil {
		id = c.New.ID()
	} else {
		id = c.Old.ID()
	}
	if s[id] != c.Old {
		return fmt.Errorf("%v: old is %v, there is %v", id, c.Old, s[id])
	}
	if f, ok := c.Old.(state.Foreign); ok {
		return fmt.Errorf("changes what is foreign: %v", f)
	}
	if c.New == nil {
		delete(s, id)
		for _, o := range s {
			if err := w.supported(o); err != nil {
				return fmt.Errorf("deletion of %v leaves %v hanging: %w", id, o.ID(), err)
			}
		}
		return nil
	}
	s[id] = c.New
	return w.supported(c.New)
}

// supported reports whether what o stands on is there.
func (w world) supported(o state.Object) error {
	bridge := func(name string) error {
		if _, ok := w[state.ID{Kind: state.KindBridge, Name: name}]; !ok {
			return fmt.Errorf("no bridge %s", name)
		}
		return nil
	}
	switch o := o.(type) {
	case state.Tunnel:
		return bridge(o.Bridge)
	case state.Link:
		return bridge(o.Name)
	case state.Addr:
		return bridge(o.Dev)
	case state.Neigh:
		return bridge(o.Dev)
	case state.Route:
		if err := bridge(o.Dev); err != nil {
			return err
		}
		neigh := func(o2 state.Object) bool { n, ok := o2.(state.Neigh); return ok && n.Dev == o.Dev && n.IP == o.Via }
		src := func(o2 state.Object) bool { a, ok := o2.(state.Addr); return ok && a.Prefix.Addr() == o.Src }
		if o.Via.IsValid() && !slices.ContainsFunc(slices.Collect(maps.Values(w)), neigh) {
			return fmt.Errorf("nobody knows the way to %s", o.Via)
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(w)), src) {
			return fmt.Errorf("%s is not an address of this host", o.Src)
		}
	}
	return nil
}

// randomState is what a host of a random network wants, without sysctls and
// links, which nobody deletes.
func randomState(t testing.TB, r *rand.Rand) state.Set {
	s := randomWant(t, r)
	maps.DeleteFunc(s, func(id state.ID, _ state.Object) bool {
		return id.Kind == state.KindSysctl || id.Kind == state.KindLink
	})
	return s
}

// converges is the property: the difference, applied change by change to a
// machine that was as another configuration wanted it and then drifted, makes
// it as wanted, without ever standing in its own way, without taking away
// before it has given, and without touching what is foreign.
func converges(t testing.TB, diff func(want, have state.Set) []state.Change) error {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		have, want := randomState(t, r), randomState(t, r)
		if seed%4 == 0 {
			want = maps.Clone(have)
		}
		for _, o := range have.Sorted() {
			// Some drift that leaves everything else standing.
			id := o.ID()
			switch o := o.(type) {
			case state.Tunnel:
				if r.IntN(3) == 0 {
					o.Error = "could not add network device"
					have[id] = o
				}
			case state.Masquerade:
				if r.IntN(2) == 0 {
					delete(have, id)
				}
			}
		}
		foreign := state.Foreign{Want: state.Bridge{Name: "br-ex"}, Have: "somebody's"}
		have.Put(foreign)
		w := world(maps.Clone(have))
		deleted := false
		for _, c := range diff(want, have) {
			if err := w.apply(c); err != nil {
				return fmt.Errorf("seed %d: %s: %w", seed, c, err)
			}
			if deleted && c.New != nil {
				return fmt.Errorf("seed %d: %s: after a deletion", seed, c)
			}
			deleted = c.New == nil
		}
		if w[foreign.ID()] != foreign {
			return fmt.Errorf("seed %d: what is foreign is gone", seed)
		}
		delete(w, foreign.ID())
		if d := cmp.Diff(want.String(), state.Set(w).String()); d != "" {
			return fmt.Errorf("seed %d: not converged, -want +have:\n%s", seed, d)
		}
	}
	return nil
}

func TestDiffConverges(t *testing.T) {
	if err := converges(t, state.Diff); err != nil {
		t.Error(err)
	}
}

// TestDiffConvergesIsATest breaks Diff in every way that comes to mind.
func TestDiffConvergesIsATest(t *testing.T) {
	filter := func(keep func(c state.Change) bool) func(want, have state.Set) []state.Change {
		return func(want, have state.Set) []state.Change {
			return slices.DeleteFunc(state.Diff(want, have), func(c state.Change) bool { return !keep(c) })
		}
	}
	reorder := func(less func(a, b state.Change) int) func(want, have state.Set) []state.Change {
		return func(want, have state.Set) []state.Change {
			changes := state.Diff(want, have)
			slices.SortStableFunc(changes, less)
			return changes
		}
	}
	isDelete := func(c state.Change) int {
		if c.New == nil {
			return 1
		}
		return 0
	}
	for name, broken := range map[string]func(want, have state.Set) []state.Change{
		"does nothing":      func(_, _ state.Set) []state.Change { return nil },
		"ignores updates":   filter(func(c state.Change) bool { return c.Old == nil || c.New == nil }),
		"ignores deletions": filter(func(c state.Change) bool { return c.New != nil }),
		"ignores creations": filter(func(c state.Change) bool { return c.Old != nil }),
		"ignores OVS's complaints": filter(func(c state.Change) bool {
			o, ok := c.Old.(state.Tunnel)
			o.Error = ""
			return !ok || c.New != state.Object(o)
		}),
		"makes updates out of nothing": func(want, have state.Set) []state.Change {
			changes := state.Diff(want, have)
			for i := range changes {
				if changes[i].New != nil {
					changes[i].Old = nil
				}
			}
			return changes
		},
		"swaps the sides":  func(want, have state.Set) []state.Change { return state.Diff(have, want) },
		"deletes first":    reorder(func(a, b state.Change) int { return isDelete(b) - isDelete(a) }),
		"deletes in order": reorder(func(a, b state.Change) int { return (int(a.Kind()) - int(b.Kind())) * isDelete(a) * isDelete(b) }),
		"creates in reverse": reorder(func(a, b state.Change) int {
			return (int(b.Kind()) - int(a.Kind())) * (1 - isDelete(a)) * (1 - isDelete(b))
		}),
		"orders by kind alone": reorder(func(a, b state.Change) int { return int(a.Kind()) - int(b.Kind()) }),
		"routes before neighbours": reorder(func(a, b state.Change) int {
			early := func(c state.Change) int {
				return isDelete(c)*2 - 1 + map[bool]int{true: -1}[c.Kind() == state.KindRoute && c.New != nil]
			}
			return early(a) - early(b)
		}),
		"deletes what is foreign": func(want, have state.Set) []state.Change {
			changes := state.Diff(want, have)
			for id, o := range have {
				if _, ok := o.(state.Foreign); ok && want[id] == nil {
					changes = append(changes, state.Change{Old: o})
				}
			}
			return changes
		},
	} {
		if converges(t, broken) == nil {
			t.Errorf("a Diff that %s goes unnoticed", name)
		}
	}
}

func TestMTU(t *testing.T) {
	key := uint32(1)
	for _, tc := range []struct {
		tunnel config.Tunnel
		v4, v6 int
	}{
		{config.Tunnel{Type: "gre"}, 38, 58},
		{config.Tunnel{Type: "gre", Key: &key}, 42, 62},
		{config.Tunnel{Type: "gre", Csum: true}, 42, 62},
		{config.Tunnel{Type: "gre", Key: &key, Csum: true, BFD: true}, 46, 66},
		{config.Tunnel{Type: "vxlan"}, 50, 70},
		{config.Tunnel{Type: "vxlan", Key: &key, Csum: true, Port: 1}, 50, 70},
		{config.Tunnel{Type: "geneve"}, 50, 70},
		{config.Tunnel{Type: "geneve", Key: &key, Csum: true}, 50, 70},
		{config.Tunnel{Type: "wireguard", Port: 1}, 60, 80},
		{config.Tunnel{Type: "gre", Options: []config.Option{{Name: "ttl", Value: "64"}}}, 38, 58},
		{config.Tunnel{Type: "gre", Options: []config.Option{{Name: "psk", File: "/x"}}}, 75, 95},
		{config.Tunnel{Type: "vxlan", Options: []config.Option{{Name: "remote_name", Value: "x"}}}, 87, 107},
		{config.Tunnel{Type: "none"}, 0, 0},
	} {
		if got4, got6 := state.Overhead(tc.tunnel, false), state.Overhead(tc.tunnel, true); got4 != tc.v4 || got6 != tc.v6 {
			t.Errorf("%+v: overhead %d and %d, want %d and %d", tc.tunnel, got4, got6, tc.v4, tc.v6)
		}
	}
	for _, tc := range []struct {
		keys       string
		underlay   int
		fam        string
		underlayIP int
		want       string
	}{
		{``, 1500, "v4", 4, "1462"},
		{``, 1500, "dual", 6, "1442"},
		{`,"mtu":1462`, 1500, "v4", 4, "1462"},
		{`,"mtu":1400`, 9000, "v4", 4, "1400"},
		{`,"tunnel":{"type":"none"}`, 9000, "v4", 4, "9000"},
		{`,"tunnel":{"type":"none"},"mtu":9000`, 9000, "v4", 6, "9000"},
		{``, 106, "v4", 4, "68"},
		{``, 1318, "v6", 4, "1280"},
		{`,"mtu":1463`, 1500, "v4", 4, "invalid configuration: mtu 1463: does not fit: the underlay's MTU is 1500 and the tunnel (gre) takes 38, so at most 1462"},
		{`,"mtu":1500,"tunnel":{"type":"vxlan"}`, 1500, "v4", 6, "invalid configuration: mtu 1500: does not fit: the underlay's MTU is 1500 and the tunnel (vxlan) takes 70, so at most 1430"},
		{`,"mtu":1279`, 1500, "dual", 4, "invalid configuration: mtu 1279: less than the 1280 that IPv6 (subnet fd00:1::/64) needs: the underlay's MTU is 1500 and the tunnel (gre) takes 38"},
		{``, 1280, "v6", 4, "invalid configuration: mtu 1242: less than the 1280 that IPv6 (subnet fd00:1::/64) needs: the underlay's MTU is 1280 and the tunnel (gre) takes 38"},
		{``, 0, "v4", 4, "invalid configuration: mtu -38: less than the 68 that IPv4 needs: the underlay's MTU is 0 and the tunnel (gre) takes 38"},
	} {
		c, m := network(t, nodesJSON(2, tc.underlayIP, tc.fam), tc.keys)
		n, err := state.MTU(c, m, tc.underlay)
		got := fmt.Sprint(n)
		if err != nil {
			got = err.Error()
			if !errors.Is(err, config.ErrInvalid) || n != 0 {
				t.Errorf("%s: %d, %v does not wrap ErrInvalid", tc.keys, n, err)
			}
		}
		if got != tc.want {
			t.Errorf("%s, underlay %d, %s containers:\n got %s\nwant %s", tc.keys, tc.underlay, tc.fam, got, tc.want)
		}
	}
}

// TestDrift: what is wrong is told in one sentence that names the attribute, what
// it is and what it should be, however long the objects' commands are.
func TestDrift(t *testing.T) {
	m := netip.MustParseAddr
	tunnel := state.Tunnel{Network: "n", Name: "ot1", Bridge: "obr0-t", Type: "gre", Remote: m("172.16.32.101"), Peer: "host2"}
	other := tunnel
	other.Remote = m("172.16.32.99")
	many := make([]string, 500)
	for i := range many {
		many[i] = fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)
	}
	masquerade := state.Masquerade{Network: "n", Sources: "192.168.1.0/24", Excluded: strings.Join(many, ",")}
	fewer := masquerade
	fewer.Excluded = strings.Join(many[2:], ",")
	bridge := state.Bridge{Network: "n", Name: "obr0", FailMode: "standalone", HWAddr: "0a:58:c0:a8:01:01", MTU: 1462}
	secure := bridge
	secure.FailMode, secure.MTU = "secure", 1500
	for _, tt := range []struct {
		change state.Change
		want   string
	}{
		{state.Change{Old: other, New: tunnel}, "tunnel ot1 to host2 (172.16.32.101) differs: remote_ip is 172.16.32.99, should be 172.16.32.101"},
		{state.Change{New: tunnel}, "tunnel ot1 to host2 (172.16.32.101) is missing"},
		{state.Change{Old: fewer, New: masquerade}, "masquerade of network n differs: excluded lack 10.0.0.0/24 and 1 more"},
		{state.Change{Old: secure, New: bridge}, "OVS bridge obr0 differs: fail_mode is secure, should be standalone (and 1 more)"},
		{state.Change{Old: state.Link{Name: "obr0"}, New: state.Link{Name: "obr0", Up: true}}, "link obr0 differs: it is down"},
	} {
		if got := tt.change.Drift(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		for _, c := range state.Diff(randomState(t, r), randomState(t, r)) {
			if got := c.Drift(); utf8.RuneCountInString(got) > 120 || strings.ContainsRune(got, '\n') {
				t.Errorf("%d characters: %s", utf8.RuneCountInString(got), got)
			}
		}
	}
}
