package field

import (
	"fmt"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestSubnetsChangeInNodes: the next ADD brings about what nodes says now:
// gateway address, routes, masquerade (kube-router#496, #689: exit 0, and a
// container without a gateway; a peer's second subnet without a route, and its
// traffic masqueraded).
func TestSubnetsChangeInNodes(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h, peer := l.Hosts[0], l.Hosts[1]
	of := func(lists ...[]string) cnitest.Network {
		return cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}, Subnets: func(i int) []string { return lists[i] }}
	}
	of([]string{"192.168.1.0/24"}, []string{"192.168.2.0/24"}).Install(t, l)
	old := cnitest.Add(t, h, "ovsnet", "old")
	ping(t, old, cnitest.Add(t, peer, "ovsnet", "far"))

	// A peer gets a second subnet.
	of([]string{"192.168.1.0/24"}, []string{"192.168.2.0/24", "192.168.22.0/24"}).Install(t, l)
	far := cnitest.Add(t, peer, "ovsnet", "far2")
	if n := len(far.Addrs()); n != 2 {
		t.Fatalf("the peer's container has %d addresses, want one of each subnet", n)
	}
	c := cnitest.Add(t, h, "ovsnet", "c1")
	ping(t, c, far)
	ping(t, old, far)
	has(t, "routes", h.Shell(t, "ip route"), "192.168.22.0/24 ")
	has(t, "masquerade", h.Shell(t, "nft list table inet ovs-gre-ovsnet"), "192.168.22.0/24")

	// This host's subnet is another.
	of([]string{"192.168.51.0/24"}, []string{"192.168.2.0/24", "192.168.22.0/24"}).Install(t, l)
	cnitest.Add(t, peer, "ovsnet", "far3")
	c = cnitest.Add(t, h, "ovsnet", "c2")
	has(t, "addresses", fmt.Sprint(c.Addrs()), "192.168.51.")
	has(t, "gateway", h.Shell(t, "ip -o address show dev obr0"), "192.168.51.1/24")
	hasNot(t, "gateway", h.Shell(t, "ip -o address show dev obr0"), "192.168.1.1/24")
	has(t, "masquerade", h.Shell(t, "nft list table inet ovs-gre-ovsnet"), "192.168.51.0/24")
	ping(t, c, far)
	has(t, "the peer's routes", peer.Shell(t, "ip route"), "192.168.51.0/24 ")
}

// TestKilledWhileSubnetsChange: an ADD that was killed after it had saved the new
// nodes leaves an old gateway address on a Linux bridge, which other networks use
// too. The next ADD removes it.
func TestKilledWhileSubnetsChange(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	h.Shell(t, "ip link add br0 type bridge; ip link set br0 up")
	install := func(subnet string) {
		cnitest.Network{OVSGRE: cnitest.Conf{"linuxBridge": "br0"}, Subnets: func(int) []string { return []string{subnet} }}.Install(t, l)
	}
	install("192.168.1.0/24")
	cnitest.Add(t, h, "ovsnet", "c1")
	install("192.168.51.0/24")
	h.Shell(t, "sed -i s/192.168.1.0/192.168.51.0/ /run/ovs-gre/ovsnet/nodes.json /run/ovs-gre/ovsnet/config.json")
	cnitest.Add(t, h, "ovsnet", "c2")
	have := h.Shell(t, "ip -o address show dev br0")
	has(t, "gateway", have, "192.168.51.1/24")
	hasNot(t, "gateway", have, "192.168.1.1/24")
}
