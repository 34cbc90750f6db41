package firewall

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"

	"ovs-gre-cni/pkg/state"
)

var blue = state.Masquerade{
	Network:  "blue",
	Sources:  "10.1.0.0/24,fd00:1::/64",
	Excluded: "10.1.0.0/24,10.1.1.0/24,224.0.0.0/4,fd00:1::/64,fd00:2::/64,ff00::/8",
}

const blueTable = `table inet ovs-gre-blue {
	set sources4 {
		type ipv4_addr
		flags interval
		elements = { 10.1.0.0/24 }
	}

	set excluded4 {
		type ipv4_addr
		flags interval
		elements = { 10.1.0.0/24, 10.1.1.0/24,
			     224.0.0.0/4 }
	}

	set sources6 {
		type ipv6_addr
		flags interval
		elements = { fd00:1::/64 }
	}

	set excluded6 {
		type ipv6_addr
		flags interval
		elements = { fd00:1::/64,
			     fd00:2::/64,
			     ff00::/8 }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @sources4 ip daddr != @excluded4 masquerade
		ip6 saddr @sources6 ip6 daddr != @excluded6 masquerade
	}
}
`

func TestMasqueradeTable(t *testing.T) {
	newNetns(t, "nft")
	b, want := NewBackend("blue"), wanted(blue)
	if got := drift(t, b, want); !strings.HasPrefix(got, "masquerade of network blue is missing") {
		t.Errorf("before: %q", got)
	}
	ensure(t, b, want)
	if diff := cmp.Diff(blueTable, listing(t)); diff != "" {
		t.Errorf("ruleset (-want +got):\n%s", diff)
	}
	if got := drift(t, b, want); got != "" {
		t.Errorf("after: %s", got)
	}
	if got := ensure(t, b, want); len(got) != 0 {
		t.Errorf("a second Ensure: %v", got)
	}
	prune(t, b, want)
	if diff := cmp.Diff(blueTable, listing(t)); diff != "" {
		t.Errorf("after pruning what is wanted (-want +got):\n%s", diff)
	}
	prune(t, b, nil)
	if got := listing(t); got != "" {
		t.Errorf("left over:\n%s", got)
	}
}

// What plan prints makes the same.
func TestMasqueradeCommand(t *testing.T) {
	newNetns(t, "nft")
	for _, m := range []state.Masquerade{blue, {Network: "blue", Sources: "10.1.0.0/24", Excluded: "ff00::/8"}} {
		for range 2 {
			sh(t, m.String())
			if got := drift(t, NewBackend("blue"), wanted(m)); got != "" {
				t.Errorf("drift: %s", got)
			}
		}
	}
	sh(t, blue.String())
	if diff := cmp.Diff(blueTable, listing(t)); diff != "" {
		t.Errorf("ruleset (-want +got):\n%s", diff)
	}
}

func TestMasqueradeAlterations(t *testing.T) {
	const table = "inet ovs-gre-blue"
	rule := func(n int) string {
		return fmt.Sprintf(`handle $(nft -a list chain %s postrouting | awk '/masquerade/ { print $NF }' | sed -n %dp)`, table, n)
	}
	for _, tt := range []struct{ name, script, drift string }{
		{"rule deleted", "nft delete rule " + table + " postrouting " + rule(2), "rules"},
		{"rules swapped", "nft delete rule " + table + " postrouting " + rule(1) + "; nft add rule " + table + " postrouting ip saddr @sources4 ip daddr != @excluded4 masquerade", "rules"},
		{"rule inserted", "nft insert rule " + table + " postrouting accept", "rules"},
		{"rule added", "nft add rule " + table + " postrouting counter", "rules"},
		{"rule without exclusion", "nft replace rule " + table + " postrouting " + rule(1) + " ip saddr @sources4 masquerade", "rules"},
		{"rule not inverted", "nft replace rule " + table + " postrouting " + rule(1) + " ip saddr @sources4 ip daddr @excluded4 masquerade", "rules"},
		{"rule with another set", "nft replace rule " + table + " postrouting " + rule(1) + " ip saddr @sources4 ip daddr != @sources4 masquerade", "rules"},
		{"rule with flags", "nft replace rule " + table + " postrouting " + rule(1) + " ip saddr @sources4 ip daddr != @excluded4 masquerade random", "rules"},
		{"rule with an expression that google/nftables does not know", "nft replace rule " + table + " postrouting " + rule(1) + " rt classid 7 ip saddr @sources4 ip daddr != @excluded4 masquerade", "rules"},
		{"chain flushed", "nft flush chain " + table + " postrouting", "rules"},
		{"chain deleted", "nft flush chain " + table + " postrouting; nft delete chain " + table + " postrouting", "0 chains, not 1"},
		{"chain added", "nft add chain " + table + " prerouting '{ type nat hook prerouting priority dstnat; }'", "2 chains, not 1"},
		{"policy", "nft chain " + table + " postrouting '{ policy drop; }'", "policy"},
		{"element removed", "nft delete element " + table + " sources4 { 10.1.0.0/24 }", "sources lack 10.1.0.0/24"},
		{"element added", "nft add element " + table + " excluded6 { 2001:db8::/32 }", "2001:db8::/32"},
		{"range added", "nft add element " + table + " excluded4 { 192.0.2.1-192.0.2.4 }", "excluded have 192.0.2.1/32 and 2 more too much"},
		{"sets flushed", "nft flush set " + table + " excluded4; nft flush set " + table + " excluded6", "excluded lack 10.1.0.0/24 and 5 more"},
		{"set added", "nft add set " + table + " more '{ type ipv4_addr; }'", "5 sets"},
		{"table flushed", "nft flush table " + table, "rules"},
		{"table emptied", "nft 'delete table " + table + "; add table " + table + "'", "0 chains, not 1"},
		{"table dormant", "nft add table " + table + " '{ flags dormant; }'", "flags 0x1"},
		{"hook", "nft list table " + table + " | sed 's/hook postrouting/hook input/; s/srcnat/100/; s/masquerade/accept/' >$T; nft delete table " + table + "; nft -f $T", "hook"},
		{"priority", "nft list table " + table + " | sed 's/srcnat/srcnat + 1/' >$T; nft delete table " + table + "; nft -f $T", "priority"},
		{"set type", "nft list table " + table + " | sed '/flags interval/s/$/,timeout/' >$T; nft delete table " + table + "; nft -f $T", "of our type"},
		{"table deleted", "nft delete table " + table, "missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newNetns(t, "nft")
			b, want := NewBackend("blue"), wanted(blue)
			ensure(t, b, want)
			sh(t, "T="+t.TempDir()+"/table; "+tt.script)
			if got := drift(t, b, want); !strings.Contains(got, tt.drift) || got == "" {
				t.Errorf("drift is %q, want it to say %q\n%s", got, tt.drift, listing(t))
			}
			ensure(t, b, want)
			if diff := cmp.Diff(blueTable, listing(t)); diff != "" {
				t.Errorf("mended (-want +got):\n%s", diff)
			}
			sh(t, "T="+t.TempDir()+"/table; "+tt.script)
			prune(t, b, nil)
			if got := listing(t); got != "" {
				t.Errorf("an altered table is not pruned:\n%s", got)
			}
		})
	}
}

func TestMasqueradeSets(t *testing.T) {
	many := func(n int, cidr func(i int) string) string {
		list := make([]netip.Prefix, n)
		for i := range list {
			list[i] = netip.MustParsePrefix(cidr(i))
		}
		return joinCIDRs(list)
	}
	for _, tt := range []struct{ name, sources, excluded string }{
		{"nothing", "", ""},
		{"IPv4 alone", "10.1.0.0/24", "10.0.0.0/8"},
		{"IPv6 alone", "fd00::/64", "fd00::/8"},
		{"all", "0.0.0.0/0,::/0", "0.0.0.0/0,::/0"},
		{"halves", "0.0.0.0/1,128.0.0.0/1,::/1,8000::/1", "0.0.0.0/1,128.0.0.0/1"},
		{"first and last", "0.0.0.0/32,255.255.255.255/32,::/128,ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "0.0.0.0/24,255.255.255.0/24,::/64,ffff::/16"},
		{"adjacent", "10.0.0.0/24,10.0.1.0/24,10.0.2.0/23,fd00::/64,fd00:0:0:1::/64", "255.255.254.0/24,255.255.255.0/24"},
		{"adjacent, least first", "10.0.0.0/32,10.0.0.1/32,10.0.0.2/31,10.0.0.4/30", ""},
		{"500", "10.0.0.0/8", many(500, func(i int) string { return fmt.Sprintf("10.%d.%d.0/24", i/256, i%256) })},
		{"10,000, adjacent", "10.0.0.0/8", many(10000, func(i int) string { return fmt.Sprintf("10.%d.%d.0/24", i/256, i%256) })},
		{"10,000 of IPv6", "fd00::/8", many(10000, func(i int) string { return fmt.Sprintf("fd00:%x::/64", i) })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newNetns(t, "nft")
			b, want := NewBackend("blue"), wanted(state.Masquerade{Network: "blue", Sources: tt.sources, Excluded: tt.excluded})
			for range 2 { // the second replaces
				if err := b.Apply(t.Context(), state.Diff(want, nil)); err != nil {
					t.Fatal(err)
				}
				if got := drift(t, b, want); got != "" {
					t.Errorf("drift: %.1000s", got)
				}
			}
			if _, listed, _ := strings.Cut(listing(t), "elements = { "); tt.sources != "" && !strings.HasPrefix(listed, strings.TrimSuffix(strings.Split(tt.sources, ",")[0], "/32")) {
				t.Errorf("nft lists %.100s", listed)
			}
		})
	}
}

func TestElementsOfOthers(t *testing.T) {
	key := func(s string) []byte { return netip.MustParseAddr(s).AsSlice() }
	for _, tt := range []struct {
		name  string
		elems []*element
		want  string
	}{
		{"nft's mark of an empty beginning", []*element{{flags: 1, key: key("0.0.0.0")}, {flags: 1, key: key("10.0.1.0")}, {flags: 0, key: key("10.0.0.0")}}, "10.0.0.0/24"},
		{"open towards the next", []*element{{flags: 0, key: key("10.0.0.0")}, {flags: 0, key: key("10.0.1.0")}, {flags: 1, key: key("10.0.2.0")}}, "10.0.0.0/24,10.0.1.0/24"},
		{"open towards the end", []*element{{flags: 0, key: key("192.0.0.0")}}, "192.0.0.0/2"},
		{"no CIDR", []*element{{flags: 0, key: key("10.0.0.255")}, {flags: 1, key: key("10.0.2.1")}}, "10.0.0.255/32,10.0.1.0/24,10.0.2.0/32"},
		{"all but one", []*element{{flags: 0, key: key("::1")}}, joinCIDRs(split(netip.MustParseAddr("::1"), netip.Addr{}))},
		{"catch-all", []*element{{flags: 2, key: nil}}, errElement.Error()},
		{"flags that we do not know", []*element{{flags: 4, key: key("10.0.0.0")}}, errElement.Error()},
		{"port", []*element{{flags: 0, key: []byte{0, 80}}}, errElement.Error()},
	} {
		list, err := cidrs(tt.elems)
		got := joinCIDRs(list)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := len(split(netip.MustParseAddr("::1"), netip.Addr{})); got != 128 {
		t.Errorf("all but one of IPv6: %d CIDRs, want 128", got)
	}
}

func TestEqualExprs(t *testing.T) {
	for name, want := range map[string]bool{"masq": true, "redir": false} {
		if got := equalExprs(inet, []expression{{name: name}}, []expr.Any{&expr.Masq{}}); got != want {
			t.Errorf("%s for masq: %t", name, got)
		}
	}
}
