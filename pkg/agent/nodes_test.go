package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/config"
)

// of is a candidate that came in the given minute.
func of(name string, minute int, addrs, subnets string) Candidate {
	c := Candidate{Name: name, Since: time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC)}
	for a := range strings.FieldsSeq(addrs) {
		c.Addresses = append(c.Addresses, netip.MustParseAddr(a))
	}
	for s := range strings.FieldsSeq(subnets) {
		c.Subnets = append(c.Subnets, netip.MustParsePrefix(s))
	}
	return c
}

// text tells what was selected, a line a node.
func text(nodes []config.Node, leftOut map[string]string) string {
	var b strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&b, "%s %s %v\n", n.Name, n.Address, n.Subnets)
	}
	for _, name := range slices.Sorted(maps.Keys(leftOut)) {
		fmt.Fprintf(&b, "%s: %s\n", name, leftOut[name])
	}
	return b.String()
}

func TestSelect(t *testing.T) {
	leaving := of("old", 0, "10.0.0.9", "10.88.1.0/24")
	leaving.Leaving = true
	broken := of("broken", 0, "10.0.0.9", "10.88.9.0/24")
	broken.Problem = "it is broken"
	for name, tt := range map[string]struct {
		in   []Candidate
		want string
	}{
		"none": {},
		"plain": {
			[]Candidate{of("b", 2, "10.0.0.2", "10.88.2.0/24"), of("a", 1, "10.0.0.1", "10.88.1.0/24")},
			"a 10.0.0.1 [10.88.1.0/24]\nb 10.0.0.2 [10.88.2.0/24]\n",
		},
		"dual stack, by IPv4 unless the oldest has none": {
			[]Candidate{of("a", 1, "fd00::1 10.0.0.1", "10.88.1.0/24 fd88:1::/64"), of("b", 2, "10.0.0.2 fd00::2", "10.88.2.0/24 fd88:2::/64"), of("c", 3, "fd00::3", "10.88.3.0/24")},
			"a 10.0.0.1 [10.88.1.0/24 fd88:1::/64]\nb 10.0.0.2 [10.88.2.0/24 fd88:2::/64]\nc: it has no IPv4 address, by which all others are reached\n",
		},
		"IPv6": {
			[]Candidate{of("a", 1, "fd00::1", "fd88:1::/64"), of("b", 2, "10.0.0.2 fd00::2", "fd88:2::/64"), of("c", 3, "10.0.0.3", "fd88:3::/64")},
			"a fd00::1 [fd88:1::/64]\nb fd00::2 [fd88:2::/64]\nc: it has no IPv6 address, by which all others are reached\n",
		},
		"the older keeps a subnet": {
			[]Candidate{of("a", 2, "10.0.0.1", "10.88.1.0/24"), of("b", 1, "10.0.0.2", "10.88.0.0/16"), of("c", 3, "10.0.0.3", "10.99.0.0/24")},
			"b 10.0.0.2 [10.88.0.0/16]\nc 10.0.0.3 [10.99.0.0/24]\na: its container subnet 10.88.1.0/24 overlaps 10.88.0.0/16 of b\n",
		},
		"a subnet around the older's": {
			[]Candidate{of("a", 1, "10.0.0.1", "10.88.1.0/24"), of("b", 2, "10.0.0.2", "10.88.0.0/16")},
			"a 10.0.0.1 [10.88.1.0/24]\nb: its container subnet 10.88.0.0/16 overlaps 10.88.1.0/24 of a\n",
		},
		"who leaves keeps nothing": {
			[]Candidate{leaving, of("new", 9, "10.0.0.2", "10.88.1.0/24")},
			"new 10.0.0.2 [10.88.1.0/24]\nold: its container subnet 10.88.1.0/24 overlaps 10.88.1.0/24 of new\n",
		},
		"who leaves is still there": {[]Candidate{leaving}, "old 10.0.0.9 [10.88.1.0/24]\n"},
		"addresses": {
			[]Candidate{of("a", 1, "10.0.0.1", "10.88.1.0/24"), of("b", 2, "10.0.0.1", "10.88.2.0/24"), of("c", 3, "10.88.1.7", "10.88.3.0/24"),
				of("d", 4, "10.0.0.4", "10.0.0.0/30"), of("e", 5, "10.0.0.5", "10.0.0.4/30"), of("f", 6, "127.0.0.1", "10.88.6.0/24"), of("g", 7, "", "10.88.7.0/24"), of("h", 8, "10.0.0.8", "")},
			`a 10.0.0.1 [10.88.1.0/24]
b: its address 10.0.0.1 belongs to a already
c: its address 10.88.1.7 lies in the container subnet 10.88.1.0/24 of a
d: its container subnet 10.0.0.0/30 holds the address 10.0.0.1 of a
e: node.subnets "10.0.0.4/30": holds the node's own address 10.0.0.5
f: node (f).address "127.0.0.1": want a plain unicast address of the underlay
g: it has no IPv4 address, by which all others are reached
h: it has no container subnet yet
`,
		},
		"a broken one decides nothing": {
			[]Candidate{broken, of("a", 1, "fd00::1", "10.88.1.0/24")},
			"a fd00::1 [10.88.1.0/24]\nbroken: it is broken\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, text(Select(tt.in))); diff != "" {
				t.Error(diff)
			}
			slices.Reverse(tt.in)
			if diff := cmp.Diff(tt.want, text(Select(tt.in))); diff != "" {
				t.Errorf("in another order: %s", diff)
			}
		})
	}
}

// TestSelectIsValid: what is selected, of whatever, the plugins take.
func TestSelectIsValid(t *testing.T) {
	var list []Candidate
	for i := range 4000 {
		a := netip.AddrFrom4([4]byte{10, byte(i * 7), byte(i * 13), byte(i)})
		s, err := netip.AddrFrom4([4]byte{10, byte(i * 11), byte(i * 3), 0}).Prefix(16 + i%13)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Candidate{Name: fmt.Sprint("n", i%3900), Since: time.Unix(int64(i*i%1000), 0), Addresses: []netip.Addr{a}, Subnets: []netip.Prefix{s}})
	}
	nodes, leftOut := Select(list)
	raw, err := json.Marshal(nodes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.DecodeNodes("nodes", raw); err != nil {
		t.Error(err)
	}
	if len(nodes) < 10 || len(leftOut) < 10 {
		t.Errorf("%d nodes, %d left out: nothing is tried by that", len(nodes), len(leftOut))
	}
}

func TestSpecVersion(t *testing.T) {
	for runtime, want := range map[string]string{
		"": "1.0.0", "containerd://1.6.20~ds1": "1.0.0", "containerd://1.7.27": "1.0.0", "containerd://2.0.0-rc.1": "1.1.0", "containerd://v2.4.2": "1.1.0",
		"containerd://10.0.0": "1.1.0", "cri-o://1.29.4": "1.0.0", "cri-o://1.30.0": "1.1.0", "docker://28.0.0": "1.0.0",
	} {
		if have := specVersion(runtime); have != want {
			t.Errorf("%s: %s, want %s", runtime, have, want)
		}
	}
}

func BenchmarkSelect(b *testing.B) {
	var list []Candidate
	for i := range 1000 {
		list = append(list, of(fmt.Sprint("n", i), i, fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), fmt.Sprintf("10.%d.%d.0/24 fd88:%x::/64", 88+i/250, i%250, i)))
	}
	for b.Loop() {
		if nodes, _ := Select(list); len(nodes) != 1000 {
			b.Fatal(len(nodes))
		}
	}
}
