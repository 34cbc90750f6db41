package e2e

import (
	"context"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestBroadcast sends from a container what must not leave its host: its
// broadcasts, and frames that it tags itself with the VLAN of the tunnels.
func TestBroadcast(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	cnitest.Network{}.Install(t, l)
	cs := one(t, l, "ovsnet")
	from, near := cs[0], cnitest.Add(t, l.Hosts[0], "ovsnet", "near")
	// Neighbours are known from here on, so that nothing else need be said.
	for _, to := range append(cs[1:], near) {
		reach(t, "container 1 to "+to.Name, from, to.Addr(t, false))
	}

	mac := from.Result.Interfaces[2].Mac
	transit := strings.TrimSpace(from.Host.Shell(t, "ip -o link show obr0-t | sed 's/.*ether //; s/ .*//'"))
	peer, broadcast := config.MAC(l.Hosts[1].Addr4), cnitest.Broadcast
	const ask = "192.168.1.251" // nobody has it
	arp := func(dst string, vlans ...uint16) string {
		var tags []cnitest.Tag
		for _, v := range vlans {
			tags = append(tags, cnitest.Tag{TPID: 0x8100, VLAN: v})
		}
		return cnitest.Frame(dst, mac, cnitest.TypeARP, cnitest.ARP(1, mac, from.Addr(t, false), netip.MustParseAddr(ask)), tags...)
	}

	for _, tt := range []struct {
		name   string
		frames []string
		local  int // how many of them the container next to it gets
	}{
		{"broadcast", []string{arp(broadcast), arp(broadcast), arp(broadcast)}, 3},
		{"untagged to the peer's transit link", []string{arp(peer)}, 1}, // flooded, for nobody is known to have it
		{"tagged 4094", []string{arp(broadcast, 4094), arp(peer, 4094), arp(transit, 4094)}, 0},
		{"tagged 0", []string{arp(broadcast, 0)}, 1},
		{"tagged 0 and 4094", []string{arp(broadcast, 0, 4094)}, 1},
		{"tagged 4094 and 0", []string{arp(broadcast, 4094, 0)}, 0},
		{"tagged 4094 twice", []string{arp(broadcast, 4094, 4094)}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire := l.Capture(t, gre)
			next := testnet.CaptureIn(t, near, "eth0", "")
			transitPort := testnet.CaptureIn(t, from.Host, "obr0-t", "")
			out, err := program(context.Background(), from, "frames", append([]string{"eth0"}, tt.frames...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			// What comes after the frames shows that they have passed.
			reach(t, "container 1 to container 2", from, cs[1].Addr(t, false))
			reach(t, "container 1 to its neighbour", from, near.Addr(t, false))
			lines := notFromTransit(l, wire.Stop(t))
			if n := seen(lines, "ICMP echo"); n != 2 || len(lines) != 2 {
				t.Errorf("want two GRE packets on the underlay, ping and its reply, there are:\n%s", strings.Join(lines, "\n"))
			}
			if lines := next.Stop(t); seen(lines, ask) != tt.local {
				t.Errorf("want %d of the frames in the container next to it, there came:\n%s", tt.local, strings.Join(lines, "\n"))
			}
			if lines := transitPort.Stop(t); seen(lines, ask) != 0 {
				t.Errorf("want none of the frames at the transit link, there came:\n%s", strings.Join(lines, "\n"))
			}
		})
	}
}

// notFromTransit leaves out what hosts say by their transit links of their own
// accord: the multicast groups that they are in, and their questions for the
// peers' gateways with the answers (state.Probes).
func notFromTransit(l *testnet.Lab, lines []string) []string {
	question := regexp.MustCompile(`ARP, Request who-has 192\.168\.\d+\.1 tell 192\.168\.\d+\.1,`)
	return slices.DeleteFunc(lines, func(line string) bool {
		return question.MatchString(line) || slices.ContainsFunc(l.Hosts, func(h *testnet.Host) bool {
			return slices.ContainsFunc([]netip.Addr{h.Addr4, h.Addr6}, func(a netip.Addr) bool {
				mac := config.MAC(a)
				return strings.Contains(line, " IP6 "+config.LinkLocal(mac).String()+" > ff02:") || strings.Contains(line, " is-at "+mac+",")
			})
		})
	})
}
