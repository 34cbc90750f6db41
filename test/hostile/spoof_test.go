package hostile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// A scene is two hosts, the first with an attacker and its victim, the second
// with a container that talks to the victim.
type scene struct {
	*testnet.Lab
	attacker, victim, peer *cnitest.Container
	// mac is the attacker's, gateway the link with the gateway's address.
	mac, gateway string
}

func newScene(t *testing.T, keys cnitest.Conf, setup string) scene {
	t.Helper()
	l := lab(t, 2)
	for _, h := range l.Hosts {
		h.Shell(t, setup)
	}
	cnitest.Network{OVSGRE: keys}.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	s := scene{Lab: l, attacker: cs[0], peer: cs[1], victim: cnitest.Add(t, l.Hosts[0], "ovsnet", "victim"), gateway: "obr0"}
	if name, ok := keys["linuxBridge"].(string); ok {
		s.gateway = name
	}
	s.mac = mac(t, s.attacker, "eth0")
	cnitest.AllReach(t, []*cnitest.Container{s.attacker, s.victim, s.peer})
	return s
}

// scenes are the networks whose hosts know their containers for good.
var scenes = []struct {
	name  string
	keys  cnitest.Conf
	setup string
}{
	{"segment host", nil, ""},
	{"segment container", cnitest.Conf{"segment": "container"}, ""},
	{"linuxBridge", cnitest.Conf{"linuxBridge": "br0"}, "ip link add br0 type bridge mcast_snooping 0; ip link set br0 addrgenmode none up; ip addr add 10.9.9.1/24 dev br0"},
}

// TestGatewayMAC is row 8: a container sends 200 frames a second with the
// gateway's MAC address. The others go on talking.
func TestGatewayMAC(t *testing.T) {
	t.Parallel()
	for _, segment := range segments {
		t.Run(segment, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, cnitest.Conf{"segment": segment}, "")
			before := loss(t, s.victim, s.peer.Addr(t, false), 40)
			gw := mac(t, s.Hosts[0], s.gateway)
			frame := cnitest.Frame("02:00:00:00:00:99", gw, cnitest.TypeARP, cnitest.ARP(2, gw, gateway(0, false), netip.MustParseAddr("192.168.1.251")))
			stop := keepSending(t, s.attacker, "eth0", 5*time.Millisecond, frame)
			during := leastLoss(t, s.victim, s.peer.Addr(t, false), 60)
			stop()
			figure("row 8: segment %s: a victim's loss is %d %%, under the gateway's MAC address from a container %d %%", segment, before, during)
			if during > before+10 {
				t.Errorf("%d %% of the victim's pings are lost", during)
			}
		})
	}
}

// TestForgedNeighbour is row 9: a container says by ARP and by neighbour
// discovery that the victim's addresses are its own. The host sends nothing of
// the victim's to it.
func TestForgedNeighbour(t *testing.T) {
	t.Parallel()
	for _, tt := range scenes {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, tt.keys, tt.setup)
			v4, v6 := s.victim.Addr(t, false), s.victim.Addr(t, true)
			gw := mac(t, s.Hosts[0], s.gateway)
			frames := []string{
				cnitest.Frame(cnitest.Broadcast, s.mac, cnitest.TypeARP, cnitest.ARP(1, s.mac, v4, gateway(0, false))),
				cnitest.Frame(cnitest.Broadcast, s.mac, cnitest.TypeARP, cnitest.ARP(1, s.mac, v4, v4)),
				cnitest.Frame(gw, s.mac, cnitest.TypeARP, cnitest.ARP(2, s.mac, v4, gateway(0, false))),
				cnitest.Frame("33:33:00:00:00:01", s.mac, cnitest.TypeIPv6, cnitest.NeighbourAdvertisement(v6, v6, s.mac)),
				cnitest.Frame(gw, s.mac, cnitest.TypeIPv6, cnitest.NeighbourSolicitation(v6, gateway(0, true), s.mac)),
			}
			stolen := testnet.CaptureIn(t, s.attacker, "eth0", fmt.Sprintf("(icmp or icmp6) and (dst host %s or dst host %s) and ether dst %s", v4, v6, s.mac))
			// The rest is of row 8: what OVS learns of MAC addresses is not the matter here.
			stop := keepSending(t, s.attacker, "eth0", 20*time.Millisecond, frames...)
			lost4, lost6 := leastLoss(t, s.peer, v4, 40), leastLoss(t, s.peer, v6, 40)
			stop()
			n := len(stolen.Stop(t))
			figure("row 9: %s: under forged ARP and neighbour discovery the victim loses %d %% of IPv4, %d %% of IPv6; the attacker gets %d packets", tt.name, lost4, lost6, n)
			if n > 0 || lost4 > 10 || lost6 > 10 {
				t.Errorf("the attacker gets %d packets; the victim loses %d %% and %d %%", n, lost4, lost6)
			}
			if out := s.Hosts[0].Run(t, "ip", "neigh", "show", "dev", s.gateway); strings.Contains(out, v4.String()+" lladdr "+s.mac) || strings.Contains(out, v6.String()+" lladdr "+s.mac) {
				t.Errorf("the host takes the attacker for the victim:\n%s", out)
			}
		})
	}
}

// TestNeighboursComeAndGo: the host's entries come with ADD and go with DEL, GC
// and the last container, also where the namespace went first, and not with
// another's; an administrator's stays. up makes anew what is lost.
func TestNeighboursComeAndGo(t *testing.T) {
	t.Parallel()
	for _, tt := range scenes {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := lab(t, 1)
			h := l.Hosts[0]
			h.Shell(t, tt.setup)
			network := cnitest.Network{OVSGRE: tt.keys}
			network.Install(t, l)
			gw, foreign := "obr0", 0
			if tt.keys["linuxBridge"] != nil {
				gw, foreign = "br0", 1
				h.Shell(t, "ip neigh add 10.9.9.9 lladdr 02:00:00:00:00:09 nud permanent dev br0") // before we come
			}
			entries := func() string {
				var ips []string
				for line := range strings.Lines(h.Shell(t, "ip neigh show nud permanent dev "+gw+" 2>/dev/null || :")) {
					ips = append(ips, strings.Fields(line)[0])
				}
				slices.Sort(ips)
				return strings.Join(ips, " ")
			}
			all := func(want int, when string) {
				t.Helper()
				if got := strings.Fields(entries()); len(got) != want+foreign {
					t.Errorf("%s: want %d permanent neighbours, have %v", when, want, got)
				}
			}
			stays := cnitest.Add(t, h, "ovsnet", "stays")
			h.Shell(t, "ip neigh replace 192.168.1.200 lladdr 02:00:00:00:00:c8 nud permanent dev "+gw)
			all(3, "after the first ADD and an administrator's entry")
			c := cnitest.Add(t, h, "ovsnet", "c1")
			all(5, "after the second")
			if err := c.Call("check"); err != nil {
				t.Error(err)
			}
			h.Shell(t, "ip neigh del "+c.Addr(t, false).String()+" dev "+gw)
			if err := c.Call("check"); err == nil || !strings.Contains(err.Error(), "neighbour "+c.Addr(t, false).String()) {
				t.Errorf("CHECK without the entry: %v", err)
			}
			h.Shell(t, "ip neigh del "+c.Addr(t, true).String()+" dev "+gw)
			h.Run(t, "/opt/cni/bin/ovs-grectl", "up", "/etc/cni/net.d/10-ovsnet.conflist")
			all(5, "after up")
			if err := c.Call("check"); err != nil {
				t.Error(err)
			}
			h.Shell(t, "ip addr del 192.168.1.1/24 dev "+gw) // the last of IPv4 takes all IPv4 neighbours along
			late := cnitest.Add(t, h, "ovsnet", "late")
			for _, c := range []*cnitest.Container{stays, c, late} {
				if err := c.Call("check"); err != nil {
					t.Errorf("after an ADD that has mended the gateway: %v", err)
				}
			}
			if err := late.Call("del"); err != nil {
				t.Error(err)
			}
			h.Shell(t, "ip neigh replace 192.168.1.200 lladdr 02:00:00:00:00:c8 nud permanent dev "+gw)
			if err := c.Call("del"); err != nil {
				t.Error(err)
			}
			all(3, "after DEL")
			c.Attach(t)
			all(5, "after ADD again")
			c.Delete(t) // its namespace, and with that in the kernel's time the pair
			testnet.Eventually(t, 10*time.Second, func() error {
				if out := h.Run(t, "ip", "-o", "link", "show", "type", "veth"); strings.Count(out, ": og") != 1 {
					return fmt.Errorf("links: %s", out)
				}
				return nil
			})
			if err := c.Call("del"); err != nil {
				t.Error(err)
			}
			all(3, "after DEL without a namespace")
			if err := stays.Call("check"); err != nil {
				t.Error(err)
			}
			h.Run(t, "/opt/cni/bin/ovs-grectl", "down", "--force", "/etc/cni/net.d/10-ovsnet.conflist")
			if want := map[string]string{"br0": "10.9.9.9 192.168.1.200"}[gw]; entries() != want { // obr0 is gone
				t.Errorf("after down: %q, want %q", entries(), want)
			}
		})
	}
}
