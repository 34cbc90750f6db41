package hostile

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// A plugged network's containers are on a bridge that has the link of a LAN.
type plugged struct {
	name string
	keys cnitest.Conf
	// setup makes the bridge on a host, with lan0 in it; $1 is the datapath.
	setup string
	// bridge has lan0.
	bridge string
}

var (
	adopted = plugged{"adopted bridge", cnitest.Conf{"bridge": "br-ex", "adoptBridge": true},
		"ovs-vsctl --timeout=60 add-br br-ex -- set bridge br-ex datapath_type=$1 -- add-port br-ex lan0; ip link set br-ex addrgenmode none up", "br-ex"}
	linux = plugged{"linuxBridge", cnitest.Conf{"linuxBridge": "br0"},
		"ip link add br0 type bridge mcast_snooping 0; ip link set lan0 master br0; ip link set br0 addrgenmode none up", "br0"}
)

// pluggedInto are the ways that there are, with the segments that each can have.
// A mesh is not among them where peers are on the same LAN: see TestMesh.
var pluggedInto = []struct {
	plugged
	segment string
}{{adopted, "host"}, {adopted, "container"}, {linux, "host"}}

func (p plugged) install(t *testing.T, l *testnet.Lab, segment string) []*cnitest.Container {
	t.Helper()
	for _, h := range l.Hosts {
		h.Run(t, "sh", "-ec", p.setup, "sh", l.Datapath)
	}
	keys := cnitest.Conf{"segment": segment}
	for k, v := range p.keys {
		keys[k] = v
	}
	cnitest.Network{OVSGRE: keys}.Install(t, l)
	return cnitest.AddAll(t, l, "ovsnet")
}

// TestNoLoops is row 1: two hosts on one LAN, each with a bridge that has the
// LAN's link, and a container each. One broadcast by each link must not go
// round: not a container's, nor the transit link's.
func TestNoLoops(t *testing.T) {
	t.Parallel()
	for _, tt := range pluggedInto {
		t.Run(tt.name+", segment "+tt.segment, func(t *testing.T) {
			t.Parallel()
			l := lab(t, 2)
			plugLAN(t, l, "lan", l.Hosts...)
			cs := tt.install(t, l, tt.segment)
			cnitest.AllReach(t, cs)
			bridge := tt.keys["bridge"]
			if bridge == nil {
				bridge = "obr0"
			}
			before := framesOn(t, l, "lan")
			for i, h := range l.Hosts {
				transit := bridge.(string) + "-t"
				m := mac(t, h, transit)
				send(t, h, transit, cnitest.Frame(cnitest.Broadcast, m, cnitest.TypeARP, cnitest.ARP(1, m, h.Addr4, netip.MustParseAddr("172.16.32.251"))))
				m = mac(t, cs[i], "eth0")
				send(t, cs[i], "eth0", cnitest.Frame(cnitest.Broadcast, m, cnitest.TypeARP, cnitest.ARP(1, m, cs[i].Addr(t, false), netip.MustParseAddr("192.168.1.251"))))
			}
			time.Sleep(2 * time.Second) //nolint:forbidigo // this long a loop may turn
			frames := framesOn(t, l, "lan") - before
			figure("row 1: %s, segment %s: %d frames on the LAN in 2 s", tt.name, tt.segment, frames)
			if frames > 50 {
				t.Errorf("%d frames on the LAN in 2 s, 4 broadcasts were sent", frames)
			}
		})
	}
}

// TestNoBridgedLANs is row 2: each host has a LAN of its own. What a neighbour
// on the one sends, whatever its tags, does not arrive on the other, nor at a
// transit link; what a container sends does neither.
func TestNoBridgedLANs(t *testing.T) {
	t.Parallel()
	for _, tt := range pluggedInto {
		t.Run(tt.name+", segment "+tt.segment, func(t *testing.T) {
			t.Parallel()
			l := lab(t, 2)
			plugLAN(t, l, "lan1", l.Hosts[0])
			plugLAN(t, l, "lan2", l.Hosts[1])
			cs := tt.install(t, l, tt.segment)
			cnitest.AllReach(t, cs)
			const mark = "192.168.99.99"
			far := testnet.CaptureIn(t, l.Underlay, "lan2", "")
			wire := l.Capture(t, "ip proto 47")
			sent := 0
			for _, from := range []struct {
				at   testnet.Runner
				link string
			}{{l.Underlay, "lan1"}, {cs[0], "eth0"}} {
				m := mac(t, from.at, from.link)
				arp := cnitest.ARP(1, m, netip.MustParseAddr(mark), netip.MustParseAddr("192.168.99.1"))
				var frames []string
				for _, dst := range []string{cnitest.Broadcast, config.MAC(l.Hosts[0].Addr4), config.MAC(l.Hosts[1].Addr4)} {
					for _, tags := range tagged {
						frames = append(frames, cnitest.Frame(dst, m, cnitest.TypeARP, arp, tags...))
					}
				}
				send(t, from.at, from.link, frames...)
				sent += len(frames)
			}
			cnitest.AllReach(t, cs) // what comes after the frames shows that they have passed
			lan, tunnel := cnitest.Seen(far.Stop(t), mark), cnitest.Seen(wire.Stop(t), mark)
			figure("row 2: %s, segment %s: of %d frames, tagged and not, %d arrive in the other LAN, %d in a tunnel", tt.name, tt.segment, sent, lan, tunnel)
			if lan > 0 || tunnel > 0 {
				t.Errorf("%d frames in the other LAN, %d in a tunnel", lan, tunnel)
			}
		})
	}
}

// tagged are the tags of the frames that an attacker tries.
var tagged = [][]cnitest.Tag{
	nil,
	{{TPID: 0x8100, VLAN: 0}},
	{{TPID: 0x8100, VLAN: 1}},
	{{TPID: 0x8100, VLAN: 4094}},
	{{TPID: 0x88a8, VLAN: 4094}},
	{{TPID: 0x8100, VLAN: 0}, {TPID: 0x8100, VLAN: 4094}},
	{{TPID: 0x8100, VLAN: 4094}, {TPID: 0x8100, VLAN: 0}},
	{{TPID: 0x8100, VLAN: 4094}, {TPID: 0x8100, VLAN: 4094}},
	{{TPID: 0x88a8, VLAN: 4094}, {TPID: 0x8100, VLAN: 4094}},
	{{TPID: 0x88a8, VLAN: 0}, {TPID: 0x8100, VLAN: 4094}},
}

// TestNoFrameOnTunnels is row 3: a container puts a packet with a source that
// it made up into frames for the peer's transit link, with every tag that comes
// to mind. None is to reach the peer's host. The attacker is a container of
// ours and, with a linuxBridge, one of Docker's: a plain veth on the bridge.
func TestNoFrameOnTunnels(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		plugged
		segment string
	}{{plugged{name: "own bridge"}, "host"}, {plugged{name: "own bridge"}, "container"}, {adopted, "host"}, {adopted, "container"}, {linux, "host"}} {
		t.Run(tt.name+", segment "+tt.segment, func(t *testing.T) {
			t.Parallel()
			l := lab(t, 2)
			if tt.setup != "" {
				for _, h := range l.Hosts {
					h.Run(t, "sh", "-ec", strings.NewReplacer("; ip link set lan0 master br0", "", " -- add-port br-ex lan0", "").Replace("set -- "+l.Datapath+"; "+tt.setup))
				}
				tt.setup = ""
			}
			cs := tt.install(t, l, tt.segment)
			cnitest.AllReach(t, cs)
			first, second := l.Hosts[0], l.Hosts[1]
			attackers := map[testnet.Runner]string{cs[0]: "eth0"}
			if tt.bridge == "br0" {
				docker := first.NewNetns(t, "docker")
				first.Shell(t, "ip link add plain type veth peer name inside netns docker; ip link set plain master br0 addrgenmode none up")
				docker.Shell(t, "ip link set inside addrgenmode none up")
				attackers[docker] = "inside"
			}
			const port = 9999
			spoofed := netip.MustParseAddr("192.168.1.77")
			seen := testnet.CaptureIn(t, second, "any", "udp port 9999")
			near := testnet.CaptureIn(t, cs[1], "eth0", "udp port 9999")
			sent := 0
			for at, link := range attackers {
				m := mac(t, at, link)
				var frames []string
				for _, tags := range tagged {
					for _, dst := range []string{config.MAC(second.Addr4), cnitest.Broadcast} {
						frames = append(frames, cnitest.Frame(dst, m, cnitest.TypeIPv4, cnitest.UDP(spoofed, gateway(1, false), port, "spoofed"), tags...))
					}
				}
				send(t, at, link, frames...)
				sent += len(frames)
			}
			cnitest.AllReach(t, cs)
			host, container := len(seen.Stop(t)), len(near.Stop(t))
			figure("row 3: %s, segment %s: of %d spoofed packets, tagged and not, %d reach the peer's host, %d its container", tt.name, tt.segment, sent, host, container)
			if host > 0 || container > 0 {
				t.Errorf("%d packets at the peer's host, %d at its container", host, container)
			}
		})
	}
}
