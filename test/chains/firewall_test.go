package chains

import (
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// networks are two of a lab, with firewall and its policy: blue on obr0, red
// on obr1.
func networks(policy string) (blue, red cnitest.Network) {
	chain := []cnitest.Conf{{"type": "firewall", "backend": "iptables", "ingressPolicy": policy}}
	blue = cnitest.Network{Name: "blue", Chain: chain, OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"key": 1}}}
	red = cnitest.Network{Name: "red", Chain: chain, OVSGRE: cnitest.Conf{"bridge": "obr1", "tunnel": cnitest.Conf{"key": 2}},
		Subnets: func(i int) []string {
			return []string{fmt.Sprintf("10.9.%d.0/24", i+1), fmt.Sprintf("fd09:%d::/64", i+1)}
		}}
	return blue, red
}

// TestFirewall has two networks on each host, and hosts that drop what they
// forward, which keeps networks apart between hosts. On one host policy open
// lets one network into the other, same-bridge does not; neither is in the way
// within a network, on one host or across.
func TestFirewall(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"open", "same-bridge"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			blue, red := networks(policy)
			l := lab(t, blue)
			red.Install(t, l)
			h, peer := l.Hosts[0], l.Hosts[1]
			for _, h := range l.Hosts {
				h.Shell(t, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
			}
			var before cnitest.Snapshot
			for range 2 {
				cs := []*container{add(t, h, "blue", "b1"), add(t, h, "blue", "b2"), add(t, h, "red", "r1"), add(t, peer, "blue", "b3"), add(t, peer, "red", "r3")}
				for _, v6 := range []bool{false, true} {
					within(t, cs[0], cs[1], cs[3], v6)
					// Not by the same bridge, but no peer of its network sends that.
					silent(t, "another network's container on the peer", cs[0], cs[4].Addr(t, v6))
					if policy == "open" {
						reach(t, "another network's container", cs[0], cs[2].Addr(t, v6))
					} else {
						silent(t, "another network's container", cs[0], cs[2].Addr(t, v6))
						silent(t, "another network's container", cs[2], cs[0].Addr(t, v6))
					}
				}
				for _, c := range cs {
					c.check(t)
				}
				for _, c := range cs {
					c.del(t)
				}
				left := table(t, h, "iptables-save", "filter") + table(t, h, "ip6tables-save", "filter")
				for _, own := range []string{"192.168.1.", "10.9.1.", "fd92:", "fd09:", "ovs-gre"} {
					if strings.Contains(left, own) {
						t.Errorf("rules that are a container's or ours, after DEL:\n%s", left)
					}
				}
				if before == nil {
					before = cnitest.MustLook(t, h) // what firewall shares and keeps is there from now on
				}
				unchanged(t, h, before)
			}
		})
	}
}

// within reaches from a container those of its network: one beside it and a
// peer's, there and back.
func within(t *testing.T, c, beside, far *container, v6 bool) {
	t.Helper()
	reach(t, "the container beside", c, beside.Addr(t, v6))
	reach(t, "the peer's container", c, far.Addr(t, v6))
	reach(t, "from the peer's container", far, c.Addr(t, v6))
}
