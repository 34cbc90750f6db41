package state_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/state"
)

// sources are the CIDRs from which the peers' containers are let in.
func sources(t *testing.T, subnets ...string) []netip.Prefix {
	t.Helper()
	nodes := []config.Node{{Name: "self", Address: mustAddr("172.16.0.1"), Subnets: []netip.Prefix{mustPrefix("192.168.1.0/24"), mustPrefix("fd99::/64")}}}
	for i, s := range subnets {
		nodes = append(nodes, config.Node{Name: fmt.Sprint("n", i), Address: mustAddr(fmt.Sprintf("172.16.%d.%d", 1+i/250, i%250)), Subnets: []netip.Prefix{mustPrefix(s)}})
	}
	raw, err := json.Marshal(nodes)
	if err != nil {
		t.Fatal(err)
	}
	c, m := network(t, string(raw), "")
	for _, o := range state.Forwards(c, m) {
		if f := o.(state.Forward); f.From != "" && f.To != "" {
			var list []netip.Prefix
			for s := range strings.SplitSeq(f.From, ",") {
				list = append(list, mustPrefix(s))
			}
			return list
		}
	}
	return nil
}

func TestForwardSources(t *testing.T) {
	for _, tt := range []struct {
		subnets []string
		want    string
	}{
		{nil, "[]"},
		{[]string{"192.168.2.0/24"}, "[192.168.2.0/24]"},
		{[]string{"192.168.2.0/24", "192.168.3.0/24"}, "[192.168.2.0/23]"},
		{[]string{"192.168.3.0/24", "192.168.4.0/24"}, "[192.168.3.0/24 192.168.4.0/24]"},
		{[]string{"10.0.3.0/24", "10.0.0.0/24", "10.0.2.0/24", "10.0.1.0/24"}, "[10.0.0.0/22]"},
		{[]string{"10.0.0.0/23", "10.0.2.0/24", "10.0.3.0/24"}, "[10.0.0.0/22]"},
		{[]string{"10.0.2.0/23", "10.0.0.0/24"}, "[10.0.0.0/24 10.0.2.0/23]"},
		{[]string{"fd00::/64", "fd00:0:0:1::/64", "fd00:0:0:3::/64"}, "[fd00::/63 fd00:0:0:3::/64]"},
	} {
		if got := fmt.Sprint(sources(t, tt.subnets...)); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.subnets, got, tt.want)
		}
	}
}

// More than 64 are widened to what covers them all, and nothing that is far.
func TestForwardSourcesMany(t *testing.T) {
	for _, n := range []int{64, 65, 500, 2000} {
		for name, cidr := range map[string]func(i int) string{
			"every second": func(i int) string { return fmt.Sprintf("10.%d.%d.0/24", i/128, i%128*2) },
			"in two halves": func(i int) string {
				return fmt.Sprintf("%d.%d.%d.0/24", map[int]int{0: 10, 1: 210}[i%2], i/128, i%128*2)
			},
			"IPv6": func(i int) string { return fmt.Sprintf("fd00:%x::/64", i*3) },
		} {
			var subnets []string
			for i := range n {
				subnets = append(subnets, cidr(i))
			}
			list := sources(t, subnets...)
			if len(list) > 64 || n <= 65 && len(list) < 60 {
				t.Errorf("%d %s: %d prefixes", n, name, len(list))
			}
			held := map[string]bool{}
			for _, p := range list {
				if p.Bits() < 12 {
					t.Errorf("%d %s: %s is wide", n, name, p)
				}
				for _, s := range subnets {
					held[s] = held[s] || p.Overlaps(mustPrefix(s))
				}
			}
			for _, s := range subnets {
				if !held[s] {
					t.Errorf("%d %s: %s is let out", n, name, s)
				}
			}
		}
	}
}
