package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/host"
	"ovs-gre-cni/pkg/state"

	"github.com/google/go-cmp/cmp"
)

// underlay gives the namespace an underlay and two links that OVS would have
// made.
func underlay(t *testing.T) context.Context {
	ctx := inNetns(t)
	ip(t, "link add eth0 type veth peer name wire")
	ip(t, "link set wire up")
	ip(t, "addr add 172.30.0.1/24 dev eth0")
	ip(t, "link set eth0 up")
	ip(t, "tuntap add obr0 mode tap")
	ip(t, "tuntap add obr0-t mode tap")
	return ctx
}

var (
	gateway = netip.MustParseAddr("192.168.1.1")
	scope   = Scope{
		AddrLinks: []string{"obr0", "obr0-t"}, NeighLinks: []string{"obr0-t"},
		RouteTable: 254, RouteSources: addresses("192.168.1.1", "fd00:1::1"),
	}
)

// wanted is what a network of two hosts wants of the kernel.
func wanted() state.Set {
	s := state.Set{}
	s.Put(
		state.Bridge{Network: "net", Name: "obr0"},
		state.Transit{Network: "net", Name: "obr0-t"},
		state.Sysctl{Key: "net/ipv4/conf/obr0/forwarding", Value: "1"},
		state.Sysctl{Key: "net/ipv4/conf/obr0-t/rp_filter", Value: "2"},
		state.Sysctl{Key: "net/ipv6/conf/obr0-t/addr_gen_mode", Value: "1"},
		state.Link{Name: "obr0", Up: true},
		state.Link{Name: "obr0-t", Up: true},
		state.Addr{Dev: "obr0", Prefix: netip.MustParsePrefix("192.168.1.1/24")},
		state.Addr{Dev: "obr0", Prefix: netip.MustParsePrefix("fd00:1::1/64")},
		state.Addr{Dev: "obr0-t", Prefix: netip.MustParsePrefix("fe80::858:acff:fe1e:1/64")},
		state.Neigh{Dev: "obr0-t", IP: netip.MustParseAddr("172.30.0.2"), MAC: "0a:58:ac:1e:00:02"},
		state.Neigh{Dev: "obr0-t", IP: netip.MustParseAddr("fe80::858:acff:fe1e:2"), MAC: "0a:58:ac:1e:00:02"},
		state.Route{Dst: netip.MustParsePrefix("192.168.2.0/24"), Via: netip.MustParseAddr("172.30.0.2"), Dev: "obr0-t", Onlink: true, Src: gateway, Table: 254},
		state.Route{Dst: netip.MustParsePrefix("192.168.3.0/24"), Via: netip.MustParseAddr("fe80::858:acff:fe1e:2"), Dev: "obr0-t", Src: gateway, Table: 254},
		state.Route{Dst: netip.MustParsePrefix("192.168.4.0/24"), Via: netip.MustParseAddr("172.30.0.4"), Src: gateway, Table: 254, Metric: 50},
		state.Route{Dst: netip.MustParsePrefix("192.168.5.0/24"), Dev: "obr0", Src: gateway, Table: 254},
		state.Route{Dst: netip.MustParsePrefix("fd00:2::/64"), Via: netip.MustParseAddr("fe80::858:acff:fe1e:2"), Dev: "obr0-t", Src: netip.MustParseAddr("fd00:1::1"), Table: 254},
		state.Route{Dst: netip.MustParsePrefix("fd00:3::/64"), Dev: "obr0", Src: netip.MustParseAddr("fd00:1::1"), Table: 254, Metric: 1024},
		state.Route{Dst: netip.MustParsePrefix("fd00:4::/64"), Dev: "obr0", Src: netip.MustParseAddr("fd00:1::1"), Table: 254, Metric: 7},
	)
	return s
}

// without bridges, which OVS's backend makes.
func kernelOnly(s state.Set) state.Set {
	out := state.Set{}
	for _, o := range s {
		if mine(o.ID().Kind) {
			out.Put(o)
		}
	}
	return out
}

func lines(changes []state.Change) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&b, c)
	}
	return b.String()
}

func mustCheck(t *testing.T, ctx context.Context, want state.Set, b host.Backend) string {
	t.Helper()
	changes, err := host.Check(ctx, want, b)
	if err != nil {
		t.Fatal(err)
	}
	return lines(changes)
}

func mustEnsure(t *testing.T, ctx context.Context, want state.Set, b host.Backend) {
	t.Helper()
	if _, err := host.Ensure(ctx, want, b); err != nil {
		t.Fatal(err)
	}
}

func TestConverge(t *testing.T) {
	ctx := underlay(t)
	b, want := NewBackend(scope), kernelOnly(wanted())
	before := ip(t, "route show table all") + ip(t, "-6 route show table main")

	changes, err := host.Ensure(ctx, want, b)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != len(want) {
		t.Errorf("%d changes for %d objects:\n%s", len(changes), len(want), lines(changes))
	}
	if s := mustCheck(t, ctx, want, b); s != "" {
		t.Errorf("after Ensure there is still to do:\n%s", s)
	}
	if err := b.Apply(ctx, changes); err != nil {
		t.Errorf("the same changes again: %v", err)
	}
	if s := mustCheck(t, ctx, want, b); s != "" {
		t.Errorf("after the second Apply there is still to do:\n%s", s)
	}
	t.Log(ip(t, "-4 route"), ip(t, "-6 route"), ip(t, "neigh"), ip(t, "-d addr"))

	removed, err := host.Prune(ctx, state.Set{}, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", lines(removed))
	if err := b.Apply(ctx, removed); err != nil {
		t.Errorf("the same deletions again: %v", err)
	}
	ip(t, "link set obr0 down")
	ip(t, "link set obr0-t down")
	after := ip(t, "route show table all") + ip(t, "-6 route show table main")
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("left over (-before +after):\n%s", d)
	}
}

func TestForeign(t *testing.T) {
	ctx := underlay(t)
	b, want := NewBackend(scope), kernelOnly(wanted())
	ip(t, "route add 192.168.2.0/24 via 172.30.0.9 proto static")
	ip(t, "-6 route add unreachable fd00:2::/64")
	before := ip(t, "-4 route")
	_, err := host.Ensure(ctx, want, b)
	if !errors.Is(err, host.ErrForeign) {
		t.Fatal(err)
	}
	t.Log(err)
	if ip(t, "-4 route") != before {
		t.Error("changed")
	}
	// meanwhile
	var chs []state.Change
	for _, o := range want.Sorted() {
		chs = append(chs, state.Change{New: o})
	}
	err = b.Apply(ctx, chs)
	if !errors.Is(err, host.ErrForeign) {
		t.Fatal(err)
	}
	t.Log(err)
	t.Log(ip(t, "-4 route"))
}
