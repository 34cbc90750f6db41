package hostile

import (
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestMeshIsNoRing: a mesh whose bridge has a way to the peers' hosts besides
// the tunnels is refused, with both sides named, and nothing is made.
func TestMeshIsNoRing(t *testing.T) {
	t.Parallel()
	mesh := func(more cnitest.Conf) cnitest.Conf {
		keys := cnitest.Conf{"segment": "mesh"}
		for k, v := range more {
			keys[k] = v
		}
		return keys
	}
	// The way to the peer goes by a link of its own, 172.16.33.0/24, on a LAN
	// of its own: OVS may have the underlay's.
	const lan = "ip addr flush dev lan0; "
	type ring struct {
		name  string
		keys  cnitest.Conf
		setup string // $1 the host's number, $2 the datapath
		says  []string
	}
	rings := []ring{
		{"the Linux bridge has the address", cnitest.Conf{"linuxBridge": "br0"},
			"ip link add br0 type bridge; ip link set lan0 master br0; ip link set br0 up; ip addr add 172.16.33.10$1/24 dev br0", []string{"br0"}},
		{"a macvlan beside the Linux bridge", cnitest.Conf{"linuxBridge": "br0"},
			"ip link add br0 type bridge; ip link add link lan0 name mv0 type macvlan mode bridge; ip link set mv0 up master br0; ip link set br0 up; ip addr add 172.16.33.10$1/24 dev lan0", []string{"br0", "lan0", "mv0"}},
		{"two Linux bridges and a veth pair", cnitest.Conf{"linuxBridge": "br0"},
			"ip link add br0 type bridge; ip link add br1 type bridge; ip link add v0 master br0 type veth peer name v1; ip link set v1 master br1; for i in v0 v1 br0 br1; do ip link set $i up; done; ip link set lan0 master br1; ip addr add 172.16.33.10$1/24 dev br1", []string{"br0", "br1", "v1"}},
		{"the adopted bridge has the address", cnitest.Conf{"bridge": "br-ex", "adoptBridge": true},
			"ovs-vsctl --timeout=60 add-br br-ex -- set bridge br-ex datapath_type=$2 -- add-port br-ex lan0; ip link set br-ex up; ip addr add 172.16.33.10$1/24 dev br-ex", []string{"br-ex"}},
		{"the adopted bridge has a patch to the one with the address", cnitest.Conf{"bridge": "br-in", "adoptBridge": true},
			"ovs-vsctl --timeout=60 add-br br-ex -- set bridge br-ex datapath_type=$2 -- add-port br-ex lan0 -- add-br br-in -- set bridge br-in datapath_type=$2 " +
				"-- add-port br-ex p0 -- set interface p0 type=patch options:peer=p1 -- add-port br-in p1 -- set interface p1 type=patch options:peer=p0; " +
				"ip link set br-ex up; ip link set br-in up; ip addr add 172.16.33.10$1/24 dev br-ex", []string{"br-in", "br-ex"}},
	}
	if cnitest.Emulated() { // whose kernel has VLANs and bonds; this one may not
		rings = append(rings,
			ring{"a VLAN of a link in the Linux bridge", cnitest.Conf{"linuxBridge": "br0"},
				"ip link add br0 type bridge; ip link set lan0 master br0; ip link set br0 up; ip link add link lan0 name lan0.7 type vlan id 7; ip link set lan0.7 up; ip addr add 172.16.33.10$1/24 dev lan0.7", []string{"br0", "lan0.7", "lan0"}},
			ring{"a bond in the Linux bridge", cnitest.Conf{"linuxBridge": "br0"},
				"ip link add bond0 type bond; ip link set lan0 down; ip link set lan0 master bond0; ip link set bond0 up; ip link add br0 type bridge; ip link set bond0 master br0; ip link set br0 up; ip addr add 172.16.33.10$1/24 dev br0", []string{"br0"}},
		)
	}
	for _, tt := range rings {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := lab(t, 2)
			plugLAN(t, l, "lan", l.Hosts...)
			for i, h := range l.Hosts {
				h.Run(t, "sh", "-ec", lan+tt.setup, "sh", string(rune('0'+i)), l.Datapath)
			}
			nodes := []cnitest.Conf{
				{"name": "host1", "address": "172.16.33.100", "subnets": cnitest.Subnets(0)},
				{"name": "host2", "address": "172.16.33.101", "subnets": cnitest.Subnets(1)},
			}
			keys := mesh(tt.keys)
			keys["nodes"] = nodes
			cnitest.Network{OVSGRE: keys, RouteSync: cnitest.Conf{"nodes": nodes}}.Install(t, l)
			h := l.Hosts[0]
			const look = "ls /run/ovs-gre 2>/dev/null || :; ovs-vsctl list-br; nft list tables; ip -br addr | grep 192.168.1 || :"
			before := h.Shell(t, look)
			c := &cnitest.Container{Netns: h.NewNetns(t, "c1"), Network: "ovsnet", IfName: "eth0"}
			err := c.Call("add")
			c.Delete(t)
			refused := err != nil && strings.Contains(err.Error(), "not ours: want it in segment mesh") // of code 102
			for _, says := range append(tt.says, "host2 (172.16.33.101)", "segment mesh") {
				if refused && !strings.Contains(err.Error(), says) {
					t.Errorf("want %q in %v", says, err)
				}
			}
			figure("row 1: segment mesh, %s: refused: %t", tt.name, refused)
			if !refused {
				t.Fatalf("ADD: %v, want it refused", err)
			}
			if after := h.Shell(t, look); after != before {
				t.Errorf("a refused ADD leaves %q, before it was %q", after, before)
			}
			if out, _ := h.Output(t.Context(), "/opt/cni/bin/ovs-grectl", "doctor", "/etc/cni/net.d/10-ovsnet.conflist"); !strings.Contains(out, "segment mesh") || !strings.Contains(out, "frames would loop") {
				t.Errorf("doctor says nothing of it: %s", out)
			}
		})
	}
}

// TestTwoMeshesOnOneBridge: the second of two meshes between the same hosts is
// refused where both are on one Linux bridge, and the first is as it was. In
// segment host both work.
func TestTwoMeshesOnOneBridge(t *testing.T) {
	t.Parallel()
	for _, segment := range []string{"mesh", "host"} {
		t.Run(segment, func(t *testing.T) {
			t.Parallel()
			l := lab(t, 2)
			for _, h := range l.Hosts {
				h.Shell(t, "ip link add br0 type bridge mcast_snooping 0; ip link set br0 up addrgenmode none")
			}
			subnets := func(base string) func(int) []string {
				return func(i int) []string { return []string{"10." + base + "." + string(rune('1'+i)) + ".0/24"} }
			}
			red := cnitest.Network{Name: "red", Subnets: subnets("1"), OVSGRE: cnitest.Conf{"segment": segment, "linuxBridge": "br0", "tunnel": cnitest.Conf{"key": 1}}}
			blue := cnitest.Network{Name: "blue", Subnets: subnets("2"), OVSGRE: cnitest.Conf{"segment": segment, "linuxBridge": "br0", "bridge": "obr1", "tunnel": cnitest.Conf{"key": 2}}}
			red.Install(t, l)
			blue.Install(t, l)
			reds := cnitest.AddAll(t, l, "red")
			cnitest.AllReach(t, reds)
			c := &cnitest.Container{Netns: l.Hosts[0].NewNetns(t, "blue"), Network: "blue", IfName: "eth0"}
			err := c.Call("add")
			if segment == "host" {
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Call("del") }()
			} else {
				for _, says := range []string{"bridge br0: not ours", "of network red", "obr0", "host2"} {
					if err == nil || !strings.Contains(err.Error(), says) {
						t.Errorf("ADD of the second: %v, want %q", err, says)
					}
				}
			}
			figure("row A2: two networks of segment %s on one linuxBridge: the second is refused: %t", segment, err != nil)
			cnitest.AllReach(t, reds)
			for _, r := range reds {
				if err := r.Call("check"); err != nil {
					t.Errorf("CHECK of the first network: %v", err)
				}
			}
		})
	}
}

// TestMeshTakesNoTags: in a mesh containers and tunnels share a bridge; nothing
// that a container, or one of Docker's on the Linux bridge, has tagged gets into
// a tunnel.
func TestMeshTakesNoTags(t *testing.T) {
	t.Parallel()
	for _, tt := range []plugged{{name: "own bridge"}, {name: "linuxBridge", keys: cnitest.Conf{"linuxBridge": "br0"}, bridge: "br0"}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := lab(t, 2)
			tt.setup = map[string]string{"br0": "ip link add br0 type bridge mcast_snooping 0; ip link set br0 addrgenmode none up"}[tt.bridge] + ":"
			tt.setup = strings.Replace(tt.setup, "up:", "up", 1)
			cs := tt.install(t, l, "mesh")
			cnitest.AllReach(t, cs)
			attackers := map[testnet.Runner]string{cs[0]: "eth0"}
			if tt.bridge == "br0" {
				docker := l.Hosts[0].NewNetns(t, "docker")
				l.Hosts[0].Shell(t, "ip link add plain type veth peer name inside netns docker; ip link set plain master br0 addrgenmode none up")
				docker.Shell(t, "ip link set inside addrgenmode none up")
				attackers[docker] = "inside"
			}
			const mark = "192.168.99.99"
			wire := l.Capture(t, "ip proto 47")
			sent := 0
			for at, link := range attackers {
				m := mac(t, at, link)
				var frames []string
				for _, tags := range tagged {
					if len(tags) == 0 || tags[0].VLAN == 0 {
						continue // untagged, or with a priority alone
					}
					for _, dst := range []string{cnitest.Broadcast, config.MAC(l.Hosts[1].Addr4)} {
						frames = append(frames, cnitest.Frame(dst, m, cnitest.TypeARP, cnitest.ARP(1, m, netip.MustParseAddr(mark), netip.MustParseAddr("192.168.99.1")), tags...))
					}
				}
				send(t, at, link, frames...)
				sent += len(frames)
			}
			cnitest.AllReach(t, cs)
			n := cnitest.Seen(wire.Stop(t), mark)
			figure("row 3: segment mesh, %s: of %d tagged frames %d get into a tunnel", tt.name, sent, n)
			if n > 0 {
				t.Errorf("%d of %d tagged frames in a tunnel", n, sent)
			}
		})
	}
}
