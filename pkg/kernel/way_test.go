package kernel

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// TestRoute: the route of a packet by its source and link, as the kernel has it.
func TestRoute(t *testing.T) {
	ctx := ways(t)
	set := func(key, value string) {
		t.Helper()
		if err := writeSysctl(key, value); err != nil {
			t.Fatal(err)
		}
	}
	set("net/ipv4/ip_forward", "1")
	ip(t, "-4 route add 10.4.0.0/16 via 10.0.0.7 proto 121")
	for _, c := range []struct {
		from, to, in string
		strict       bool
		dst, dev     string
		err          error
	}{
		{"", "10.7.0.1", "", false, "10.7.0.0/16", "eth0", nil},
		{"172.30.0.1", "10.5.0.1", "", false, "10.5.0.0/16", "eth0", nil}, // by the rule
		{"10.0.0.9", "10.7.0.1", "obr0", false, "10.7.0.0/16", "eth0", nil},
		{"10.0.0.9", "10.4.0.1", "obr0", false, "10.4.0.0/16", "obr0", nil},
		{"10.0.0.9", "172.30.0.1", "obr0", false, "172.30.0.1/32", "eth0", nil},
		{"10.0.0.9", "10.8.0.1", "obr0", false, "", "", ErrNoRoute},
		{"10.0.0.9", "10.9.0.1", "obr0", false, "", "", ErrNoRoute},
		{"10.0.0.9", "10.9.0.1", "obr0", true, "", "", ErrNoRoute},
		{"10.0.0.9", "192.0.2.1", "obr0", true, "", "", ErrNoRoute},
		{"10.0.0.9", "10.7.0.1", "obr0", true, "10.7.0.0/16", "eth0", nil},
		{"10.7.0.9", "10.0.0.9", "obr0", true, "", "", ErrReversePath},
		{"10.7.0.9", "10.0.0.9", "obr0", false, "10.0.0.0/24", "obr0", nil},
		{"", "fd00:9::1", "", false, "", "", ErrNoRoute},
		{"", "fd00:7::1", "", false, "fd00:7::/64", "eth0", nil},
	} {
		mode := "0"
		if c.strict {
			mode = "1"
		}
		set("net/ipv4/conf/all/rp_filter", mode)
		set("net/ipv4/conf/obr0/rp_filter", "0")
		from := netip.Addr{}
		if c.from != "" {
			from = netip.MustParseAddr(c.from)
		}
		w, err := Route(ctx, Query{From: from, To: netip.MustParseAddr(c.to), In: c.in})
		if !errors.Is(err, c.err) || err == nil && (w.Dst.String() != c.dst || w.Dev != c.dev || w.Local != (c.to == "172.30.0.1")) {
			t.Errorf("%+v: %+v, %v", c, w, err)
		}
		if err == nil && (w.Ours != strings.HasPrefix(c.to, "10.4.") || !strings.Contains(w.Text, c.dst) && !w.Local) {
			t.Errorf("%+v: %+v", c, w)
		}
	}
}

// TestNeighbourOf reads entries that somebody made and those that failed.
func TestNeighbourOf(t *testing.T) {
	ctx := ways(t)
	ip(t, "neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 dev obr0 nud permanent")
	ip(t, "neigh add 10.0.0.8 lladdr 02:00:00:00:00:08 dev obr0 nud reachable")
	for a, want := range map[string]Neighbour{
		"10.0.0.7": {MAC: "02:00:00:00:00:07", Permanent: true},
		"10.0.0.8": {MAC: "02:00:00:00:00:08"},
		"10.0.0.9": {},
	} {
		if have, err := NeighbourOf(ctx, "obr0", netip.MustParseAddr(a)); err != nil || have != want {
			t.Errorf("%s: %+v, %v", a, have, err)
		}
	}
}
