package firewall

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/state"
)

var blueGuard = state.Guard{Network: "blue", Link: "obr0-w", Peers: "10.1.1.0/24,10.1.2.0/24,fd00:2::/64"}

const blueGuardTable = `table inet ovs-gre-blue/guard {
	set peers4 {
		type ipv4_addr
		flags interval
		elements = { 10.1.1.0/24, 10.1.2.0/24 }
	}

	set peers6 {
		type ipv6_addr
		flags interval
		elements = { fd00:2::/64 }
	}

	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		iifname != "obr0-w" ip saddr @peers4 drop
		iifname != "obr0-w" ip6 saddr @peers6 drop
	}

	chain postrouting {
		type filter hook postrouting priority filter; policy accept;
		oifname != "obr0-w" ip daddr @peers4 drop
		oifname != "obr0-w" ip6 daddr @peers6 drop
	}
}
`

// settleGuard makes the guard what want says, and returns what CHECK would have said.
func settleGuard(t *testing.T, want state.Set) string {
	t.Helper()
	return settleGuardOf(t, state.Guard{Network: "blue", Link: "obr0-w"}, want)
}

func settleGuardOf(t *testing.T, form state.Guard, want state.Set) string {
	t.Helper()
	b := NewGuardBackend(form)
	look := func() []state.Change {
		have, err := b.Observe(context.Background(), want)
		if err != nil {
			t.Fatal(err)
		}
		return state.Diff(want, have)
	}
	changes := look()
	if len(changes) == 0 {
		return ""
	}
	if err := b.Apply(context.Background(), changes); err != nil {
		t.Fatal(err)
	}
	if left := look(); len(left) > 0 {
		t.Errorf("after Apply: %v", left)
	}
	return changes[0].Drift()
}

func TestGuard(t *testing.T) {
	newNetns(t, "nft")
	want := wanted(blueGuard)
	for _, step := range []struct{ name, script, drift string }{
		{"at first", ":", "is missing"},
		{"again", ":", ""},
		{"without a rule", "nft flush chain inet ovs-gre-blue/guard postrouting", "altered"},
		{"with a rule before", "nft insert rule inet ovs-gre-blue/guard prerouting accept", "altered"},
		{"dormant", "nft 'add table inet ovs-gre-blue/guard { flags dormant; }'", "altered"},
		{"without a peer", "nft delete element inet ovs-gre-blue/guard peers4 '{ 10.1.2.0/24 }'", "peers lack 10.1.2.0/24"},
		{"with a stranger", "nft add element inet ovs-gre-blue/guard peers6 '{ fd00:9::/64 }'", "peers have fd00:9::/64 too much"},
		{"by hand", "nft flush ruleset; " + blueGuard.String(), ""},
		{"gone", "nft flush ruleset", "is missing"},
	} {
		sh(t, step.script)
		if got := settleGuard(t, want); (got == "") != (step.drift == "") || !strings.Contains(got, step.drift) {
			t.Errorf("%s: drift %q, want %q", step.name, got, step.drift)
		}
		if diff := cmp.Diff(blueGuardTable, listing(t)); diff != "" {
			t.Errorf("%s: ruleset (-want +got):\n%s", step.name, diff)
		}
	}
	if got := settleGuard(t, state.Set{}); got != "guard against clear packets of network blue is left over" {
		t.Errorf("not wanted: %q", got)
	}
	if got := listing(t); got != "" {
		t.Errorf("left over:\n%s", got)
	}
}

// TestGuardBesides: it and a masquerade of one network leave each other alone.
func TestGuardBesides(t *testing.T) {
	newNetns(t, "nft")
	b := NewBackend("blue")
	ensure(t, b, wanted(blue))
	settleGuard(t, wanted(blueGuard))
	if got := drift(t, b, wanted(blue)); got != "" {
		t.Error(got)
	}
	prune(t, b, nil)
	if diff := cmp.Diff(blueGuardTable, listing(t)); diff != "" {
		t.Errorf("ruleset (-want +got):\n%s", diff)
	}
}

// TestGuardIPsec: what our netlink makes is what the printed nft command makes, for
// each kind of tunnel, and from one to the other it is replaced.
func TestGuardIPsec(t *testing.T) {
	newNetns(t, "nft")
	settleGuard(t, wanted(blueGuard))
	for _, tunnels := range []string{"gre", "udp 4789", "udp 6081"} {
		form := state.Guard{Network: "blue", Link: "obr0-t", Tunnels: tunnels}
		g := form
		g.Peers, g.Nodes = "10.1.1.0/24,fd00:2::/64", "172.16.32.101/32,172.16.32.102/32,fd00:32::101/128"
		if got := settleGuardOf(t, form, wanted(g)); !strings.Contains(got, "altered") {
			t.Errorf("%s in the place of another: %q", tunnels, got)
		}
		made := listing(t)
		for _, rule := range []string{
			"ip saddr @nodes4 " + outerText(tunnels) + " meta ipsec missing drop", "ip6 daddr @nodes6 " + outerText(tunnels) + " rt ipsec missing drop",
			"elements = { 172.16.32.101, 172.16.32.102 }", `oifname != "obr0-t" ip daddr @peers4 drop`,
		} {
			if !strings.Contains(made, rule) {
				t.Errorf("%s: no %s in\n%s", tunnels, rule, made)
			}
		}
		sh(t, "nft flush ruleset; "+g.String())
		if got := settleGuardOf(t, form, wanted(g)); got != "" {
			t.Errorf("%s by hand: %q", tunnels, got)
		}
		if diff := cmp.Diff(made, listing(t)); diff != "" {
			t.Errorf("%s: by netlink and by hand (-netlink +hand):\n%s", tunnels, diff)
		}
		for _, step := range []struct{ script, drift string }{
			{"nft flush chain inet ovs-gre-blue/guard output", "altered"},
			{"nft delete chain inet ovs-gre-blue/guard input", "altered"},
			{"nft delete element inet ovs-gre-blue/guard nodes4 '{ 172.16.32.101 }'", "nodes lack 172.16.32.101"},
		} {
			sh(t, step.script)
			if got := settleGuardOf(t, form, wanted(g)); !strings.Contains(got, step.drift) {
				t.Errorf("%s; %s: %q", tunnels, step.script, got)
			}
		}
	}
	if got := settleGuard(t, wanted(blueGuard)); !strings.Contains(got, "altered") {
		t.Errorf("WireGuard's in its place: %q", got)
	}
	if diff := cmp.Diff(blueGuardTable, listing(t)); diff != "" {
		t.Errorf("ruleset (-want +got):\n%s", diff)
	}
}

// outerText is how nft lists a tunnel's outer packets.
func outerText(tunnels string) string {
	if port, udp := strings.CutPrefix(tunnels, "udp "); udp {
		return "udp dport " + port
	}
	return "meta l4proto gre"
}
