package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/state"

	"github.com/google/go-cmp/cmp"
)

// underlay gives the namespace an underlay and two links that OVS would have
// made.
func underlay(t *testing.T) context.Context {
	ctx := inNetns(t)
	// Link-local addresses come when they please; the tests compare lists.
	if err := writeSysctl("net/ipv6/conf/default/addr_gen_mode", "1"); err != nil {
		t.Fatal(err)
	}
	ip(t, "link add eth0 type veth peer name wire")
	ip(t, "link set wire up")
	if err := writeSysctl("net/ipv6/conf/default/addr_gen_mode", "0"); err != nil {
		t.Fatal(err)
	}
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
		state.Bridge{Network: "net", Name: "obr0-t"},
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

func mustCheck(t *testing.T, ctx context.Context, want state.Set, b state.Backend) string {
	t.Helper()
	changes, err := state.Check(ctx, want, b)
	if err != nil {
		t.Fatal(err)
	}
	return lines(changes)
}

func mustEnsure(t *testing.T, ctx context.Context, want state.Set, b state.Backend) {
	t.Helper()
	if _, err := state.CreateAndUpdate(ctx, want, b); err != nil {
		t.Fatal(err)
	}
}

func TestConverge(t *testing.T) {
	ctx := underlay(t)
	b, want := NewBackend(scope), kernelOnly(wanted())
	before := ip(t, "-4 route show table all") + ip(t, "-6 route show table main")

	changes, err := state.CreateAndUpdate(ctx, want, b)
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
	if out := ip(t, "-6 -o addr show dev obr0"); !strings.Contains(out, "fd00:1::1/64 scope global nodad") {
		t.Errorf("IPv6 address with duplicate address detection: %s", out)
	}
	if out := ip(t, "-4 route show 192.168.5.0/24"); !strings.Contains(out, "scope link") {
		t.Errorf("on-link route: %s", out)
	}
	prune(t, ctx, b, state.Set{}, 12) // addresses, neighbours, routes
	ip(t, "link set obr0 down")
	ip(t, "link set obr0-t down")
	after := ip(t, "-4 route show table all") + ip(t, "-6 route show table main")
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("left over (-before +after):\n%s", d)
	}
}

// prune deletes what is not wanted, twice, and expects so many deletions.
func prune(t *testing.T, ctx context.Context, b *Backend, want state.Set, n int) {
	t.Helper()
	removed, err := state.Prune(ctx, want, b)
	if err != nil {
		t.Fatal(err)
	}
	if len(removed) != n {
		t.Errorf("%d deletions, want %d:\n%s", len(removed), n, lines(removed))
	}
	if err := b.Apply(ctx, removed); err != nil {
		t.Errorf("the same deletions again: %v", err)
	}
	if again, err := state.Prune(ctx, want, b); err != nil || len(again) > 0 {
		t.Errorf("there is still something to delete: %v\n%s", err, lines(again))
	}
}

// Each line spoils something; Check shows it and CreateAndUpdate mends it.
func TestDrift(t *testing.T) {
	ctx := underlay(t)
	b, want := NewBackend(scope), kernelOnly(wanted())
	mustEnsure(t, ctx, want, b)
	for spoil, see := range map[string]string{
		"addr del 192.168.1.1/24 dev obr0":                                                          "+ ip addr replace 192.168.1.1/24 dev obr0",
		"neigh replace 172.30.0.2 lladdr 0a:58:00:00:00:99 dev obr0-t nud permanent":                "~ ip neigh replace 172.30.0.2 lladdr 0a:58:ac:1e:00:02 dev obr0-t nud permanent  (was: ip neigh replace 172.30.0.2 lladdr 0a:58:00:00:00:99 dev obr0-t nud permanent)",
		"neigh replace 172.30.0.2 lladdr 0a:58:ac:1e:00:02 dev obr0-t nud reachable":                "+ ip neigh replace 172.30.0.2 lladdr 0a:58:ac:1e:00:02 dev obr0-t nud permanent",
		"neigh del 172.30.0.2 dev obr0-t":                                                           "+ ip neigh replace 172.30.0.2 lladdr 0a:58:ac:1e:00:02 dev obr0-t nud permanent",
		"route del 192.168.2.0/24":                                                                  "+ ip route replace 192.168.2.0/24 via 172.30.0.2 dev obr0-t onlink src 192.168.1.1 proto 121",
		"route replace 192.168.2.0/24 via 172.30.0.2 dev eth0 src 192.168.1.1 proto 121":            "~ ip route replace 192.168.2.0/24 via 172.30.0.2 dev obr0-t onlink src 192.168.1.1 proto 121  (was: ip route replace 192.168.2.0/24 via 172.30.0.2 dev eth0 src 192.168.1.1 proto 121)",
		"route replace 192.168.2.0/24 via 172.30.0.2 dev obr0-t onlink proto 121":                   "(was: ip route replace 192.168.2.0/24 via 172.30.0.2 dev obr0-t onlink proto 121)",
		"route replace 192.168.3.0/24 via 172.30.0.3 src 192.168.1.1 proto 121":                     "~ ip route replace 192.168.3.0/24 via inet6 fe80::858:acff:fe1e:2 dev obr0-t src 192.168.1.1 proto 121",
		"route replace 192.168.4.0/24 via 172.30.0.9 src 192.168.1.1 metric 50 proto 121":           "~ ip route replace 192.168.4.0/24 via 172.30.0.4 src 192.168.1.1 metric 50 proto 121",
		"-6 route del fd00:2::/64":                                                                  "+ ip route replace fd00:2::/64 via",
		"-6 route replace fd00:2::/64 via fe80::9 dev obr0-t src fd00:1::1 proto 121":               "~ ip route replace fd00:2::/64 via fe80::858:acff:fe1e:2",
		"-6 route replace fd00:2::/64 dev obr0 src fd00:1::1 proto 121":                             "~ ip route replace fd00:2::/64 via fe80::858:acff:fe1e:2 dev obr0-t src fd00:1::1 proto 121  (was: ip route replace fd00:2::/64 dev obr0 src fd00:1::1 proto 121)",
		"-6 route replace fd00:3::/64 via fe80::858:acff:fe1e:2 dev obr0-t src fd00:1::1 proto 121": "~ ip route replace fd00:3::/64 dev obr0 src fd00:1::1 metric 1024 proto 121  (was: ip route replace fd00:3::/64 via fe80::858:acff:fe1e:2 dev obr0-t src fd00:1::1 metric 1024 proto 121)",
		"link set obr0 down": "~ ip link set obr0 up  (was: ip link set obr0 down)",
		"link set wire down": "", // a carrier is not ours to give
	} {
		ip(t, spoil)
		if s := mustCheck(t, ctx, want, b); !strings.Contains(s, see) || (s == "") != (see == "") {
			t.Errorf("ip %s\nshows as: %s\nwant: %s", spoil, s, see)
		}
		mustEnsure(t, ctx, want, b)
		if s := mustCheck(t, ctx, want, b); s != "" {
			t.Errorf("ip %s\nis not mended:\n%s", spoil, s)
		}
	}
	if err := writeSysctl("net/ipv4/conf/obr0-t/rp_filter", "1"); err != nil {
		t.Fatal(err)
	}
	if s := mustCheck(t, ctx, want, b); s != "~ sysctl -qw net/ipv4/conf/obr0-t/rp_filter=2  (was: sysctl -qw net/ipv4/conf/obr0-t/rp_filter=1)\n" {
		t.Error(s)
	}
	mustEnsure(t, ctx, want, b)
	prune(t, ctx, b, want, 0)
}

func TestForeignRoute(t *testing.T) {
	ctx := underlay(t)
	b, want := NewBackend(scope), kernelOnly(wanted())
	ip(t, "-6 addr add fd00:99::1/64 dev eth0 nodad")
	for _, c := range []struct{ family, dst, route, text string }{
		{"-4", "192.168.2.0/24", "192.168.2.0/24 via 172.30.0.9 proto static", "192.168.2.0/24 via 172.30.0.9 dev eth0 proto static"},
		{"-4", "192.168.2.0/24", "blackhole 192.168.2.0/24", "blackhole 192.168.2.0/24 proto boot"},
		{"-4", "192.168.3.0/24", "192.168.3.0/24 via 172.30.0.9 src 172.30.0.1 proto 121", "192.168.3.0/24 via 172.30.0.9 dev eth0 proto ovs-gre src 172.30.0.1"},
		{"-4", "192.168.4.0/24", "192.168.4.0/24 metric 50 nexthop via 172.30.0.7 nexthop via 172.30.0.8", "192.168.4.0/24 proto boot metric 50 nexthop via 172.30.0.7 dev eth0 nexthop via 172.30.0.8 dev eth0"},
		{"-6", "fd00:2::/64", "unreachable fd00:2::/64", "unreachable fd00:2::/64 dev lo proto boot metric 1024"},
		{"-6", "fd00:2::/64", "fd00:2::/64 via fd00:99::9", "fd00:2::/64 via fd00:99::9 dev eth0 proto boot metric 1024"},
		{"-6", "fd00:3::/64", "fd00:3::/64 via fd00:99::9 src fd00:99::1 proto 121", "fd00:3::/64 via fd00:99::9 dev eth0 proto ovs-gre src fd00:99::1 metric 1024"},
	} {
		ip(t, c.family+" route add "+c.route)
		before := ip(t, c.family+" route")
		_, err := state.CreateAndUpdate(ctx, want, b)
		if !errors.Is(err, fault.ErrForeign) || !strings.Contains(err.Error(), "there is "+c.text) {
			t.Errorf("%s is not shown as %s: %v", c.route, c.text, err)
		}
		if d := cmp.Diff(before, ip(t, c.family+" route")); d != "" {
			t.Errorf("%s: Ensure changed something:\n%s", c.route, d)
		}
		meanwhile(t, ctx, b, want, c.dst, c.text)
		prune(t, ctx, b, state.Set{}, 11)
		ip(t, c.family+" route del "+c.route) // it is still there
	}
}

// meanwhile applies changes that were computed before the foreign route came.
func meanwhile(t *testing.T, ctx context.Context, b *Backend, want state.Set, dst, text string) {
	t.Helper()
	err := b.Apply(ctx, state.Diff(want, state.Set{}))
	if !errors.Is(err, fault.ErrForeign) || !strings.Contains(err.Error(), "route "+dst+" is in the way") || !strings.Contains(err.Error(), "there is "+text) {
		t.Errorf("%s is not refused: %v", text, err)
	}
	if s := mustCheck(t, ctx, want, b); strings.Count(s, "\n") != 1 || !strings.Contains(s, "foreign: "+text) {
		t.Errorf("after the refusal of %s there is to do:\n%s", text, s)
	}
}

// A foreign route of another metric, and the routes of another network, are
// neither seen nor touched.
func TestForeignElsewhere(t *testing.T) {
	ctx := underlay(t)
	ip(t, "addr add 10.99.0.1/24 dev eth0")
	ip(t, "-6 addr add fd00:99::1/64 dev eth0 nodad")
	for _, r := range []string{
		"-4 route add 192.168.2.0/24 via 172.30.0.9 metric 600 proto dhcp",
		"-4 route add 192.168.2.0/24 via 172.30.0.9 table 99",
		"-4 route add 192.168.77.0/24 via 172.30.0.9 src 10.99.0.1 proto 121",
		"-6 route add fd00:2::/64 via fd00:99::9 metric 600",
		"-6 route add fd00:77::/64 via fd00:99::9 src fd00:99::1 proto 121",
		"addr add 192.168.1.9/24 dev obr0",
		"neigh replace 172.30.0.77 lladdr 0a:58:00:00:00:99 dev eth0 nud permanent",
	} {
		ip(t, r)
	}
	look := func() string {
		return ip(t, "-4 route show dev eth0") + ip(t, "-6 route show dev eth0") + ip(t, "-4 route show table 99") + ip(t, "-4 addr show dev obr0") + ip(t, "neigh show dev eth0")
	}
	ip(t, "link set obr0 up")
	ip(t, "link set obr0-t up")
	before := look()
	b, want := NewBackend(scope), kernelOnly(wanted())
	mustEnsure(t, ctx, want, b)
	prune(t, ctx, b, want, 0)
	prune(t, ctx, b, state.Set{}, 12)
	if d := cmp.Diff(before, look()); d != "" {
		t.Errorf("(-before +after):\n%s", d)
	}
}

// IPv6 joins a route that is appended to ours with it.
func TestForeignAppended(t *testing.T) {
	ctx := underlay(t)
	b, want := NewBackend(scope), kernelOnly(wanted())
	mustEnsure(t, ctx, want, b)
	ip(t, "-6 route append fd00:2::/64 via fe80::9 dev eth0 proto static")
	s := mustCheck(t, ctx, want, b)
	if !strings.Contains(s, "nexthop via fe80::858:acff:fe1e:2 dev obr0-t nexthop via fe80::9 dev eth0") {
		t.Errorf("shows as: %s", s)
	}
	prune(t, ctx, b, state.Set{}, 12)
	if out := ip(t, "-6 route show fd00:2::/64"); out != "fd00:2::/64 via fe80::9 dev eth0 proto static metric 1024 pref medium\n" {
		t.Errorf("after Prune: %s", out)
	}
}

func TestForeignAddr(t *testing.T) {
	ctx := underlay(t)
	b := NewBackend(scope)
	want := state.Set{}
	want.Put(state.Addr{Dev: "obr0", Prefix: netip.MustParsePrefix("192.168.1.1/24")})
	ip(t, "addr add 192.168.1.1/24 dev obr0")
	if s := mustCheck(t, ctx, want, b); s != "" {
		t.Errorf("an address that another made does not do: %s", s)
	}
	del := []state.Change{{Old: state.Addr{Dev: "obr0", Prefix: netip.MustParsePrefix("192.168.1.1/24")}}}
	if err := b.Apply(ctx, del); err != nil {
		t.Error(err)
	}
	if s := mustCheck(t, ctx, want, b); s != "" {
		t.Errorf("another's address was deleted: %s", s)
	}
	want.Put(state.Addr{Dev: "obr0", Prefix: netip.MustParsePrefix("fd00:1::1/64")})
	ip(t, "addr add fd00:1::1/80 dev obr0")
	_, err := state.CreateAndUpdate(ctx, want, b)
	if err == nil || err.Error() != "address fd00:1::1/64 of obr0: file exists: the link has it as fd00:1::1/80" {
		t.Errorf("another prefix length: %v", err)
	}
}

func TestForeignBridge(t *testing.T) {
	ctx := inNetns(t)
	ip(t, "link add obr0 type veth peer name obr0-t")
	want := wanted()
	s := mustCheck(t, ctx, want, NewBackend(scope))
	for _, see := range []string{
		"(was: foreign: link obr0 is of kind veth and no port of OVS)",
		"(was: foreign: link obr0-t is of kind veth and no port of OVS)",
	} {
		if !strings.Contains(s, see) {
			t.Errorf("no %q in\n%s", see, s)
		}
	}
	want.Put(state.Bridge{Network: "net", Name: "obr0", Adopted: true})
	if s := mustCheck(t, ctx, want, NewBackend(scope)); strings.Contains(s, "link obr0 is of kind") {
		t.Errorf("of an adopted bridge OVS speaks:\n%s", s)
	}
}

func TestMaster(t *testing.T) {
	ctx := underlay(t)
	b := NewBackend(Scope{})
	want := state.Set{}
	want.Put(state.Link{Name: "obr0", Up: true, Master: "br9"})
	_, err := state.CreateAndUpdate(ctx, want, b)
	if err == nil || err.Error() != "link obr0: link br9: no such link" {
		t.Errorf("without the bridge: %v", err)
	}
	if err := ipErr("link add br9 type bridge"); err != nil {
		t.Fatalf("a Linux bridge: %v", err)
	}
	mustEnsure(t, ctx, want, b)
	if s := mustCheck(t, ctx, want, b); s != "" {
		t.Error(s)
	}
	want.Put(state.Link{Name: "obr0", Up: true})
	if s := mustCheck(t, ctx, want, b); s != "" {
		t.Errorf("a master that nobody asked for is in the way: %s", s)
	}
}

func TestMTUAndMAC(t *testing.T) {
	ctx := underlay(t)
	b := NewBackend(Scope{})
	want := state.Set{}
	want.Put(state.Link{Name: "obr0", Up: true, MTU: 1400, MAC: "0A:58:c0:a8:01:01"})
	mustEnsure(t, ctx, want, b)
	for spoil, see := range map[string]string{
		"link set obr0 mtu 1300":                  "~ ip link set obr0 up mtu 1400 address 0A:58:c0:a8:01:01  (was: ip link set obr0 up mtu 1300 address 0A:58:c0:a8:01:01)\n",
		"link set obr0 address 0a:58:00:00:00:09": "~ ip link set obr0 up mtu 1400 address 0A:58:c0:a8:01:01  (was: ip link set obr0 up mtu 1400 address 0a:58:00:00:00:09)\n",
		"link set obr0 alias x":                   "",
	} {
		ip(t, spoil)
		if s := mustCheck(t, ctx, want, b); s != see {
			t.Errorf("ip %s\nshows as: %s\nwant: %s", spoil, s, see)
		}
		mustEnsure(t, ctx, want, b)
		if s := mustCheck(t, ctx, want, b); s != "" {
			t.Errorf("ip %s\nis not mended:\n%s", spoil, s)
		}
	}
	ip(t, "link set obr0 down mtu 1300 address 0a:58:00:00:00:09")
	ip(t, strings.TrimPrefix(want[state.Link{Name: "obr0"}.ID()].String(), "ip "))
	if s := mustCheck(t, ctx, want, b); s != "" {
		t.Errorf("the object's text does not do it: %s", s)
	}
	if out := ip(t, "link show obr0"); !strings.Contains(out, "mtu 1400") || !strings.Contains(out, "ether 0a:58:c0:a8:01:01") {
		t.Error(out)
	}
	want.Put(state.Link{Name: "obr0", Up: true})
	ip(t, "link set obr0 mtu 1300 address 0a:58:00:00:00:09")
	if s := mustCheck(t, ctx, want, b); s != "" {
		t.Errorf("what nobody asked for is in the way: %s", s)
	}
	want.Put(state.Link{Name: "obr0", Up: true, MTU: 12})
	if _, err := state.CreateAndUpdate(ctx, want, b); err == nil || err.Error() != "link obr0: MTU 12: invalid argument (mtu less than device minimum)" {
		t.Errorf("a tiny MTU: %v", err)
	}
}

func TestMissingLinks(t *testing.T) {
	ctx := inNetns(t)
	b, want := NewBackend(scope), kernelOnly(wanted())
	for id := range want {
		if id.Kind == state.KindSysctl {
			delete(want, id)
		}
	}
	want.Put(state.Sysctl{Key: "net/ipv4/conf/obr0/forwarding", Value: "1"})
	_, err := state.CreateAndUpdate(ctx, want, b)
	if err == nil {
		t.Fatal("no error")
	}
	have := "\n" + err.Error() + "\n"
	for _, line := range []string{
		"sysctl net/ipv4/conf/obr0/forwarding: open /proc/sys/net/ipv4/conf/obr0/forwarding: no such file or directory",
		"link obr0: no such link",
		"address 192.168.1.1/24 of obr0: link obr0: no such link",
		"neighbour 172.30.0.2 on obr0-t: link obr0-t: no such link",
		"route 192.168.2.0/24: link obr0-t: no such link",
		"route 192.168.4.0/24: network is unreachable (Nexthop has invalid gateway)",
	} {
		if !strings.Contains(have, "\n"+line+"\n") {
			t.Errorf("no %q in%s", line, have)
		}
	}
	if err := b.Apply(ctx, state.Diff(state.Set{}, want)); err != nil {
		t.Errorf("deleting what cannot be there: %v", err)
	}
}

// many wants n routes, a prefix a peer.
func many(n int) state.Set {
	s := state.Set{}
	for i := range n {
		s.Put(state.Route{
			Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
			Via: netip.MustParseAddr("172.30.0.2"), Dev: "obr0-t", Onlink: true, Src: gateway, Table: 254,
		})
	}
	return s
}

func TestManyRoutes(t *testing.T) {
	ctx := underlay(t)
	b, base := NewBackend(scope), kernelOnly(wanted())
	mustEnsure(t, ctx, base, b)
	want := many(2000)
	changes := state.Diff(want, state.Set{})
	for range 2 { // the second time every message is answered by an error
		if err := b.Apply(ctx, changes); err != nil {
			t.Fatal(err)
		}
	}
	if s := mustCheck(t, ctx, want, b); strings.Count(s, "\n") != 12 {
		t.Errorf("there is still to do:\n%.500s", s)
	}
	if n := strings.Count(ip(t, "-4 route show proto 121"), "dev obr0-t"); n != 2002 {
		t.Errorf("%d routes", n)
	}
	prune(t, ctx, b, base, 2000)
}

func TestDeadline(t *testing.T) {
	inNetns(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := NewBackend(scope)
	if _, err := b.Observe(ctx, wanted()); !errors.Is(err, context.Canceled) {
		t.Errorf("Observe: %v", err)
	}
	if err := b.Apply(ctx, state.Diff(many(1), nil)); err == nil {
		t.Error("Apply: no error")
	}
}
