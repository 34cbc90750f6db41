package state_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/state"
)

// memory is a Backend that holds its state in memory: objects of the kinds
// from first to last, those in owned being the network's, the others
// somebody else's.
type memory struct {
	name        string
	first, last state.Kind
	has         state.Set
	owned       map[state.ID]bool
	observe     error // what Observe fails with
	apply       error // what Apply fails with
	log         *[]string
}

func (m *memory) mine(id state.ID) bool { return m.first <= id.Kind && id.Kind <= m.last }

// shared reports whether many may have a hand in objects of a kind.
func shared(k state.Kind) bool {
	return k == state.KindSysctl || k == state.KindLink || k == state.KindAddr
}

func (m *memory) Observe(_ context.Context, want state.Set) (state.Set, error) {
	if m.observe != nil {
		return nil, m.observe
	}
	s := state.Set{}
	for id, o := range m.has {
		switch w, wanted := want[id]; {
		case m.owned[id], wanted && shared(id.Kind):
			s[id] = o
		case wanted:
			s[id] = state.Foreign{Want: w, Have: o.String()}
		}
	}
	return s, nil
}

func (m *memory) Apply(_ context.Context, changes []state.Change) error {
	for _, c := range changes {
		id := changed(c)
		if !m.mine(id) {
			continue
		}
		*m.log = append(*m.log, m.name+" "+c.String()[:1])
		if m.apply != nil {
			continue
		}
		if c.New == nil {
			delete(m.has, id)
			delete(m.owned, id)
			continue
		}
		m.has[id] = c.New
		// A sysctl or somebody's link does not become ours by being set.
		m.owned[id] = m.owned[id] || id.Kind != state.KindSysctl && id.Kind != state.KindLink
	}
	return m.apply
}

func changed(c state.Change) state.ID {
	if c.New != nil {
		return c.New.ID()
	}
	return c.Old.ID()
}

// machine is a host in memory: OVSDB, the kernel, nftables.
type machine struct {
	ovs, kernel, filter *memory
	log                 []string
}

func newMachine() *machine {
	m := &machine{}
	backend := func(name string, first, last state.Kind) *memory {
		return &memory{name: name, first: first, last: last, has: state.Set{}, owned: map[state.ID]bool{}, log: &m.log}
	}
	m.ovs = backend("ovs", state.KindBridge, state.KindFDB)
	m.kernel = backend("kernel", state.KindSysctl, state.KindRoute)
	m.filter = backend("filter", state.KindMasquerade, state.KindForward)
	return m
}

func (m *machine) backends() []state.Backend { return []state.Backend{m.ovs, m.kernel, m.filter} }

// put makes objects as somebody would, owned by the network or not.
func (m *machine) put(owned bool, objs ...state.Object) {
	for _, b := range []*memory{m.ovs, m.kernel, m.filter} {
		for _, o := range objs {
			if b.mine(o.ID()) {
				b.has.Put(o)
				b.owned[o.ID()] = owned
			}
		}
	}
}

// all is everything that there is.
func (m *machine) all() state.Set {
	s := maps.Clone(m.ovs.has)
	maps.Copy(s, m.kernel.has)
	maps.Copy(s, m.filter.has)
	return s
}

// ours is what the network owns.
func (m *machine) ours() state.Set {
	s := m.all()
	maps.DeleteFunc(s, func(id state.ID, _ state.Object) bool {
		return !m.ovs.owned[id] && !m.kernel.owned[id] && !m.filter.owned[id]
	})
	return s
}

// randomWant is what a host of a random network wants.
func randomWant(t testing.TB, r *rand.Rand) state.Set {
	t.Helper()
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	var list []string
	net := r.IntN(3)
	for i := range 1 + r.IntN(6) {
		subnets := fmt.Sprintf(`"10.%d.%d.0/24"`, net, i)
		if r.IntN(2) == 0 {
			subnets += fmt.Sprintf(`,"fd00:%d:%d::/64"`, net, i)
		}
		list = append(list, fmt.Sprintf(`{"name":"h%d","address":"172.16.32.%d","subnets":[%s]}`, i, 10+i+r.IntN(2)*100, subnets))
	}
	c, m := network(t, "["+strings.Join(list, ",")+"]", fmt.Sprintf(
		`,"datapathType":"netdev","bridge":%q,"segment":%q,"mtu":%s,"ipMasq":%s,"tunnel":{"type":%q,"csum":%s,"bfd":%s}`,
		pick("obr0", "obr1"), pick(segments...), pick("1300", "1400"), pick("true", "false"), pick("gre", "vxlan"), pick("true", "false"), pick("true", "false")))
	want := state.Desired(c, m, mtu(t, c, m))
	routes, err := state.DesiredRoutes(routesConfig(t, ""), m, ways(c, m))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(want, routes)
	return want
}

// drift spoils a random part of what m has: removes it, or changes it.
func drift(r *rand.Rand, m *machine) {
	for _, o := range m.ours().Sorted() {
		id := o.ID()
		for _, b := range []*memory{m.ovs, m.kernel, m.filter} {
			if !b.mine(id) || r.IntN(3) != 0 {
				continue
			}
			if r.IntN(2) == 0 {
				delete(b.has, id)
				delete(b.owned, id)
				continue
			}
			switch o := o.(type) {
			case state.Bridge:
				o.HWAddr, o.MTU, o.Error = "02:00:00:00:00:01", 576, "no such device"
				b.has[id] = o
			case state.Tunnel:
				o.Type, o.Peer = "stt", "nobody"
				b.has[id] = o
			case state.Route:
				o.Metric, o.Dev = 0, "eth0"
				b.has[id] = o
			case state.Neigh:
				o.MAC = "02:00:00:00:00:02"
				b.has[id] = o
			case state.Masquerade:
				o.Excluded = ""
				b.has[id] = o
			}
		}
	}
	for id, o := range m.kernel.has {
		switch o := o.(type) {
		case state.Sysctl:
			if strings.HasPrefix(o.Key, "net/") {
				o.Value += "0"
				m.kernel.has[id] = o
			}
		case state.Link:
			o.Up, o.Master = false, ""
			m.kernel.has[id] = o
		}
	}
}

// strangers are what others have on the host and nobody wants.
func strangers() []state.Object {
	return []state.Object{
		state.Bridge{Network: "other", Name: "br-ex"},
		state.Tunnel{Network: "other", Name: "ot-other", Bridge: "br-ex", Type: "gre"},
		state.Addr{Dev: "eth0", Prefix: netip.MustParsePrefix("172.16.32.10/24")},
		state.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.16.32.1"), Table: 254},
		state.Sysctl{Key: "vm/swappiness", Value: "60"},
		state.Masquerade{Network: "other"},
	}
}

// TestConverges: whatever a host was, CreateAndUpdate and Prune make it what it should
// be, and leave alone what is not ours.
func TestConverges(t *testing.T) {
	ctx := t.Context()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		m := newMachine()
		m.put(false, strangers()...)
		before := randomWant(t, r)
		if _, err := state.CreateAndUpdate(ctx, before, m.backends()...); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		drift(r, m)
		want := randomWant(t, r)
		had := m.all()

		todo, err := state.Check(ctx, want, m.backends()...)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := cmp.Diff(had.String(), m.all().String()); d != "" {
			t.Errorf("seed %d: Check changed the host:\n%s", seed, d)
		}

		made, err := state.CreateAndUpdate(ctx, want, m.backends()...)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		now := m.all()
		for id := range had {
			if now[id] == nil {
				t.Errorf("seed %d: Ensure deleted %v", seed, id)
			}
		}
		for id, o := range want {
			if now[id] != o {
				t.Errorf("seed %d: after Ensure: have %v, want %v", seed, now[id], o)
			}
		}

		removed, err := state.Prune(ctx, want, m.backends()...)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		pruned := m.all()
		for id, o := range pruned {
			if now[id] != o {
				t.Errorf("seed %d: Prune made %v of %v", seed, o, now[id])
			}
		}
		for _, o := range strangers() {
			if pruned[o.ID()] != o {
				t.Errorf("seed %d: a stranger's %v is %v", seed, o, pruned[o.ID()])
			}
		}
		ours := m.ours()
		for id := range want {
			// Sysctls and links are nobody's, yet there.
			if shared(id.Kind) {
				ours[id] = pruned[id]
			}
		}
		if d := cmp.Diff(want.String(), ours.String()); d != "" {
			t.Errorf("seed %d: -want +ours:\n%s", seed, d)
		}
		if d := cmp.Diff(text(todo), text(append(made, removed...))); d != "" {
			t.Errorf("seed %d: Check said, Ensure and Prune did:\n%s", seed, d)
		}
		for _, verb := range []func(context.Context, state.Set, ...state.Backend) ([]state.Change, error){state.Check, state.CreateAndUpdate, state.Prune} {
			m.log = nil
			if again, err := verb(ctx, want, m.backends()...); err != nil || len(again) > 0 || len(m.log) > 0 {
				t.Errorf("seed %d: once more: %v, %v, %v", seed, again, err, m.log)
			}
		}
		if t.Failed() {
			return
		}
	}
}

// TestReconcile: it is CreateAndUpdate and Prune in one, and looks a second time only to
// delete.
func TestReconcile(t *testing.T) {
	ctx := t.Context()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 11))
		one, two := newMachine(), newMachine()
		before, want := randomWant(t, r), randomWant(t, r)
		if seed%2 == 0 {
			want = maps.Clone(before)
			want.Put(small().Sorted()...) // nothing to delete
		}
		for _, m := range []*machine{one, two} {
			if _, err := state.CreateAndUpdate(ctx, before, m.backends()...); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		todo, err := state.Check(ctx, want, one.backends()...)
		if err != nil {
			t.Fatal(err)
		}
		done, err := state.Reconcile(ctx, want, todo, one.backends()...)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := cmp.Diff(text(todo), text(done)); d != "" {
			t.Errorf("seed %d: Check said, Reconcile did:\n%s", seed, d)
		}
		if _, err := state.CreateAndUpdate(ctx, want, two.backends()...); err != nil {
			t.Fatal(err)
		}
		if _, err := state.Prune(ctx, want, two.backends()...); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(two.all().String(), one.all().String()); d != "" {
			t.Errorf("seed %d: -Ensure and Prune +Reconcile:\n%s", seed, d)
		}
	}
}

// TestDown: a host that wants nothing is left as it was found.
func TestDown(t *testing.T) {
	ctx := t.Context()
	for seed := range uint64(50) {
		m := newMachine()
		m.put(false, strangers()...)
		found := m.all().String()
		if _, err := state.CreateAndUpdate(ctx, randomWant(t, rand.New(rand.NewPCG(seed, 3))), m.backends()...); err != nil {
			t.Fatal(err)
		}
		if _, err := state.Prune(ctx, nil, m.backends()...); err != nil {
			t.Fatal(err)
		}
		left := m.all()
		maps.DeleteFunc(left, func(id state.ID, o state.Object) bool {
			return id.Name != "vm/swappiness" && (id.Kind == state.KindSysctl || id.Kind == state.KindLink)
		})
		if d := cmp.Diff(found, left.String()); d != "" {
			t.Errorf("seed %d: -found +left:\n%s", seed, d)
		}
	}
}

func text(changes []state.Change) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&b, c)
	}
	return b.String()
}

// small is a set of one object a backend, and two in the kernel.
func small() state.Set {
	s := state.Set{}
	s.Put(
		state.Bridge{Network: "n", Name: "obr0", HWAddr: "0a:58:c0:a8:01:01", MTU: 1462},
		state.Addr{Dev: "obr0", Prefix: netip.MustParsePrefix("192.168.1.1/24")},
		state.Route{Dst: netip.MustParsePrefix("192.168.2.0/24"), Dev: "obr0", Table: 254},
		state.Masquerade{Network: "n", Sources: "192.168.1.0/24", Excluded: "224.0.0.0/4"},
	)
	return s
}

func TestForeign(t *testing.T) {
	m := newMachine()
	want := small()
	m.put(false,
		state.Bridge{Network: "other", Name: "obr0", HWAddr: "0a:58:0a:00:00:01", MTU: 1500},
		state.Route{Dst: netip.MustParsePrefix("192.168.2.0/24"), Via: netip.MustParseAddr("10.0.0.1"), Dev: "eth0", Table: 254},
	)
	had := m.all().String()
	changes, err := state.CreateAndUpdate(t.Context(), want, m.backends()...)
	if !errors.Is(err, fault.ErrForeign) || len(changes) > 0 || len(m.log) > 0 || m.all().String() != had {
		t.Errorf("Ensure made %v, %v\n%s", changes, m.log, m.all())
	}
	if err == nil {
		t.Fatal("no error")
	}
	const text = `OVS bridge obr0 is in the way: not ours: there is %s
route 192.168.2.0/24 is in the way: not ours: there is ip route replace 192.168.2.0/24 via 10.0.0.1 dev eth0 proto 121`
	id := state.ID{Kind: state.KindBridge, Name: "obr0"}
	if d := cmp.Diff(fmt.Sprintf(text, m.ovs.has[id]), err.Error()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	// It does not stop the removal of what is ours, and is not removed.
	m.put(true, state.Route{Dst: netip.MustParsePrefix("192.168.3.0/24"), Dev: "obr0", Table: 254})
	if _, err := state.Prune(t.Context(), want, m.backends()...); err != nil || m.all().String() != had {
		t.Errorf("Prune: %v\n%s", err, m.all())
	}
	// A backend that reports what nobody asked about loses nothing by it.
	m.put(true, state.Foreign{Want: state.Bridge{Name: "br-ex"}, Have: "somebody's"})
	if changes, err := state.Prune(t.Context(), want, m.backends()...); err != nil || len(changes) > 0 {
		t.Errorf("Prune of what is foreign: %v, %v", changes, err)
	}
}

func TestErrors(t *testing.T) {
	ctx := t.Context()
	one, two := errors.New("one"), errors.New("two")

	// Who cannot look does not touch, and all who cannot look are named.
	m := newMachine()
	m.ovs.observe, m.filter.observe = one, two
	for _, verb := range []func(context.Context, state.Set, ...state.Backend) ([]state.Change, error){state.Check, state.CreateAndUpdate, state.Prune} {
		changes, err := verb(ctx, small(), m.backends()...)
		if !errors.Is(err, one) || !errors.Is(err, two) || changes != nil || len(m.log) > 0 {
			t.Errorf("%v, %v, %v", changes, err, m.log)
		}
	}

	// CreateAndUpdate stops where a backend fails: what comes behind depends on it.
	m = newMachine()
	m.kernel.apply, m.filter.apply = one, two
	changes, err := state.CreateAndUpdate(ctx, small(), m.backends()...)
	if !errors.Is(err, one) || errors.Is(err, two) || len(changes) != 4 {
		t.Errorf("Ensure: %v, %v", changes, err)
	}
	if got := strings.Join(m.log, ", "); got != "ovs +, kernel +, kernel +" {
		t.Errorf("Ensure: %s", got)
	}
	if len(m.filter.has) != 0 {
		t.Errorf("the filter has %v", m.filter.has)
	}

	// Prune goes on.

	m = newMachine()
	m.put(true, slices.Collect(maps.Values(small()))...)
	m.ovs.apply, m.filter.apply = one, two
	backends := m.backends()
	changes, err = state.Prune(ctx, nil, backends...)
	if !errors.Is(err, one) || !errors.Is(err, two) || len(changes) != 4 {
		t.Errorf("Prune: %v, %v", changes, err)
	}
	// What stands on the others goes first.
	if got := strings.Join(m.log, ", "); got != "filter -, kernel -, kernel -, ovs -" {
		t.Errorf("Prune: %s", got)
	}
	if !slices.Equal(backends, m.backends()) {
		t.Error("Prune turned its caller's backends round")
	}
}

// TestNoBackends: on a host that shows nothing, everything is missing.
func TestNoBackends(t *testing.T) {
	changes, err := state.Check(t.Context(), small())
	if err != nil || len(changes) != 4 {
		t.Errorf("%v, %v", changes, err)
	}
}
