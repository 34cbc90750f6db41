package hostile

import (
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestFirewallHolds is row 5: a host whose FORWARD chain drops, as Docker has
// it, with an administrator's drop in DOCKER-USER, and a container of Docker's
// on the Linux bridge that ours come to. A stranger that did not reach it before
// ADD does not reach it after, nor a container of ours; an administrator's drop
// of a peer's containers stays one. Who is attached talks to its peers and to
// the world.
func TestFirewallHolds(t *testing.T) {
	t.Parallel()
	const docker = `ip link add br0 type bridge mcast_snooping 0; ip link set br0 addrgenmode none up; ip addr add 192.168.1.1/24 dev br0
		sysctl -qw net.ipv4.ip_forward=1
		iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER`
	const drop = `iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; iptables -A FORWARD -j REJECT; iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER`
	for _, tt := range []struct {
		name, setup string
		keys        cnitest.Conf
	}{
		{"docker0", docker, cnitest.Conf{"linuxBridge": "br0"}},
		{"own bridge, policy DROP", "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER", nil},
		{"own bridge, RHEL's last rule", drop, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := lab(t, 3)
			first := l.Hosts[0]
			first.Shell(t, tt.setup+"\niptables -A DOCKER-USER -s 192.168.3.0/24 -j DROP") // host3's containers
			for _, h := range l.Hosts[1:] {
				if tt.keys["linuxBridge"] != nil {
					h.Shell(t, "ip link add br0 type bridge mcast_snooping 0; ip link set br0 addrgenmode none up")
				}
			}
			l.Underlay.Run(t, "ip", "route", "add", "192.168.1.0/24", "via", first.Addr4.String())
			stranger := l.Underlay
			plain := first.NewNetns(t, "plain")
			target := "192.168.1.77"
			if tt.keys["linuxBridge"] != nil {
				first.Shell(t, "ip link add plain type veth peer name inside netns plain; ip link set plain master br0 addrgenmode none up")
				plain.Shell(t, "ip link set inside addrgenmode none up; ip addr add "+target+"/24 dev inside; ip route add default via 192.168.1.1")
				if lost := loss(t, stranger, addr(target), 5); lost != 100 {
					t.Fatalf("the stranger reaches the container before anything is done: %d %% lost", lost)
				}
			}
			cnitest.Network{OVSGRE: tt.keys, Subnets: only4}.Install(t, l)
			cs := cnitest.AddAll(t, l, "ovsnet")
			cnitest.AllReach(t, cs[:2])
			cnitest.Reach(t, "container 1 to the world", cs[0], stranger.Addr4)
			reached := 0
			if tt.keys["linuxBridge"] != nil {
				reached += 100 - loss(t, stranger, addr(target), 10)
			}
			toOurs, dropped := 100-loss(t, stranger, cs[0].Addr(t, false), 10), 100-loss(t, cs[2], cs[0].Addr(t, false), 10)
			figure("row 5: %s: a stranger reaches Docker's container with %d %% of its packets, ours with %d %%; whom DOCKER-USER drops with %d %%", tt.name, reached, toOurs, dropped)
			if reached > 0 || toOurs > 0 || dropped > 0 {
				t.Errorf("what the firewall drops passes after ADD: %d %%, %d %%, %d %%", reached, toOurs, dropped)
			}
		})
	}
}
