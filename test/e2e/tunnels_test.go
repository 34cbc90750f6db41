package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// vni is tcpdump's filter for VXLAN and Geneve packets to a UDP port with a
// network identifier: it is at the same place in both.
func vni(v6 bool, port, key int) string {
	if v6 {
		return fmt.Sprintf("ip6 and ip6[6] = 17 and ip6[42:2] = %d and ip6[52:4] = %d", port, key<<8)
	}
	return fmt.Sprintf("udp dst port %d and udp[12:4] = %d", port, key<<8)
}

// TestTunnels looks at VXLAN and Geneve on the underlay, at ports of the
// configuration's choice, and at two networks that differ in the key alone.
func TestTunnels(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	for _, typ := range []string{"vxlan", "geneve"} {
		for _, underlay6 := range families {
			t.Run(typ+" over "+familyName(underlay6), func(t *testing.T) {
				const port, blueKey, redKey = 8473, 0xabcdef, 7
				mtu := 1450
				if underlay6 {
					mtu = 1430
				}
				tunnel := func(key int) cnitest.Conf { return cnitest.Conf{"type": typ, "port": port, "key": key} }
				cnitest.Network{V6: underlay6, OVSGRE: cnitest.Conf{"tunnel": tunnel(blueKey)}}.Install(t, l)
				cs := one(t, l, "ovsnet")
				keyed := l.Capture(t, vni(underlay6, port, blueKey)+" and len = 1514")
				fits(t, cs[0], cs[1], mtu)
				// A request and a reply of each family fill the underlay's MTU.
				if lines := keyed.Stop(t); len(lines) != 4 {
					t.Errorf("want 4 packets of 1500 bytes to port %d with VNI %d, there are:\n%s", port, blueKey, strings.Join(lines, "\n"))
				}
				for _, c := range cs {
					del(t, c)
				}

				blue := cnitest.Network{Name: "blue", V6: underlay6, OVSGRE: cnitest.Conf{"segment": "mesh", "tunnel": tunnel(blueKey)}}
				red := cnitest.Network{Name: "red", V6: underlay6, OVSGRE: cnitest.Conf{"bridge": "obr1", "segment": "mesh", "tunnel": tunnel(redKey)},
					Subnets: func(i int) []string { return []string{fmt.Sprintf("10.9.%d.0/24", i+1)} }}
				blue.Install(t, l)
				red.Install(t, l)
				blues, reds := one(t, l, "blue"), []*cnitest.Container{}
				for _, h := range l.Hosts {
					reds = append(reds, cnitest.Add(t, h, "red", "red"))
				}
				reach(t, "blue", blues[0], blues[1].Addr(t, false))
				reach(t, "red", reds[0], reds[1].Addr(t, false))
				wires := []*testnet.Capture{l.Capture(t, vni(underlay6, port, blueKey)), l.Capture(t, vni(underlay6, port, redKey))}
				hears := testnet.CaptureIn(t, blues[1], "eth0", "arp")
				deaf := []*testnet.Capture{testnet.CaptureIn(t, reds[0], "eth0", "arp"), testnet.CaptureIn(t, reds[1], "eth0", "arp")}
				const nobody = "192.168.1.251"
				mac := blues[0].Result.Interfaces[2].Mac
				frame := cnitest.Frame(cnitest.Broadcast, mac, cnitest.TypeARP, cnitest.ARP(1, mac, blues[0].Addr(t, false), netip.MustParseAddr(nobody)))
				if out, err := program(context.Background(), blues[0], "frames", "eth0", frame).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				reach(t, "blue", blues[0], blues[1].Addr(t, false)) // the broadcast has passed
				reach(t, "red", reds[0], reds[1].Addr(t, false))
				if n := seen(hears.Stop(t), nobody); n != 1 {
					t.Errorf("want the broadcast once in its own network, there are %d", n)
				}
				for _, c := range deaf {
					if n := seen(c.Stop(t), nobody); n != 0 {
						t.Errorf("the other network hears the broadcast %d times", n)
					}
				}
				for i, w := range wires {
					if lines := w.Stop(t); len(lines) < 2 {
						t.Errorf("want the pings of network %d with its own VNI on the underlay, there are:\n%s", i+1, strings.Join(lines, "\n"))
					}
				}
				for _, c := range append(blues, reds...) {
					del(t, c)
				}
				for _, h := range l.Hosts {
					h.Shell(t, "rm /etc/cni/net.d/10-blue.conflist /etc/cni/net.d/10-red.conflist")
				}
			})
		}
	}
}

// TestDirect routes by the peers' own addresses: no packet is in a tunnel.
func TestDirect(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	for _, underlay6 := range families {
		t.Run("by "+familyName(underlay6), func(t *testing.T) {
			n := cnitest.Network{V6: underlay6, OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"type": "none"}}, RouteSync: cnitest.Conf{"mode": "direct"}}
			if !underlay6 { // IPv6 needs an IPv6 next hop
				n.Subnets = func(i int) []string { return cnitest.Subnets(i)[:1] }
			}
			n.Install(t, l)
			cs := one(t, l, "ovsnet")
			for _, v6 := range families {
				if v6 && !underlay6 {
					continue
				}
				wire := l.Capture(t, gre+" or icmp or (icmp6 and (ip6[40] == 128 or ip6[40] == 129))")
				reach(t, "container 1 to container 2", cs[0], cs[1].Addr(t, v6))
				lines := notFromTransit(l, wire.Stop(t))
				if n := seen(lines, fmt.Sprintf(" %s > %s", cs[0].Addr(t, v6), cs[1].Addr(t, v6)), "echo request"); n != 1 || seen(lines, "GRE") != 0 {
					t.Errorf("want one bare echo request:\n%s", strings.Join(lines, "\n"))
				}
				pairs(t, cs, v6)
			}
			// A bare packet may be as large as the underlay's.
			if got := linkMTU(t, cs[0], "eth0"); got != 1500 {
				t.Errorf("MTU %d, want 1500", got)
			}
			for _, c := range cs {
				if err := c.Call("check"); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				del(t, c)
			}
		})
	}
}

// TestAuto has a third host on another subnet, behind a router: two hosts reach
// each other directly, and the third through tunnels.
func TestAuto(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	// The underlay's host is the router; what it says of shorter ways is true
	// only of a lab whose subnets share a switch.
	l.Underlay.Shell(t, `ip address add 172.16.33.2/24 dev underlay
echo 1 >/proc/sys/net/ipv4/ip_forward
for f in all default underlay; do echo 0 >/proc/sys/net/ipv4/conf/$f/send_redirects; done`)
	far := l.Hosts[2]
	far.Shell(t, fmt.Sprintf(`ip address flush dev %[1]s scope global
ip address add 172.16.33.102/24 dev %[1]s
ip route replace default via 172.16.33.2 dev %[1]s`, far.UnderlayLink))
	far.Addr4 = netip.MustParseAddr("172.16.33.102")
	if l.Datapath == testnet.DatapathNetdev {
		// The userspace datapath may take half a minute to learn of its router.
		mac := strings.TrimSpace(l.Underlay.Shell(t, "ip -o link show underlay | sed 's/.*ether //; s/ .*//'"))
		for i, h := range l.Hosts {
			gw := "172.16.32.2"
			if i == 2 {
				gw = "172.16.33.2"
			}
			h.Run(t, "ovs-appctl", "--timeout=30", "tnl/neigh/set", "br-phy", gw, mac)
		}
	}
	reach(t, "host 1 to host 3", l.Hosts[0], far.Addr4)
	cnitest.Network{RouteSync: cnitest.Conf{"mode": "auto"}}.Install(t, l)
	cs := one(t, l, "ovsnet")
	for _, tt := range []struct {
		from, to int
		tunnel   bool
	}{{0, 1, false}, {1, 0, false}, {0, 2, true}, {2, 1, true}} {
		from, to := cs[tt.from], cs[tt.to]
		wire := l.Capture(t, gre+" or icmp")
		reach(t, fmt.Sprintf("container %d to container %d", tt.from+1, tt.to+1), from, to.Addr(t, false))
		lines := wire.Stop(t)
		request := fmt.Sprintf("%s > %s: ICMP echo request", from.Addr(t, false), to.Addr(t, false))
		if seen(lines, request) == 0 || (seen(lines, request, "GREv0") == seen(lines, request)) != tt.tunnel {
			t.Errorf("container %d to container %d, in a tunnel: want %t:\n%s", tt.from+1, tt.to+1, tt.tunnel, strings.Join(lines, "\n"))
		}
	}
	for _, from := range cs {
		for _, to := range cs {
			for _, v6 := range families {
				reach(t, from.Name+" to "+to.Name, from, to.Addr(t, v6))
				reach(t, from.Host.Name+" to "+to.Name, from.Host, to.Addr(t, v6))
			}
		}
		if err := from.Call("check"); err != nil {
			t.Errorf("CHECK: %v", err)
		}
	}
}

// TestRoutesAlone has route-sync behind plugins that are not ours, on hosts
// without Open vSwitch.
func TestRoutesAlone(t *testing.T) {
	t.Parallel()
	for _, main := range []string{"bridge", "ptp", "macvlan"} {
		t.Run(main, func(t *testing.T) {
			l := testnet.New(t, testnet.Options{Hosts: 3, NoOVS: true, PluginDir: cnitest.BinDir(t)})
			n := cnitest.Network{Subnets: func(i int) []string { return cnitest.Subnets(i)[:1] }}
			n.RouteSync = cnitest.Conf{"mode": "direct", "nodes": n.NodeList(l)}
			for i, h := range l.Hosts {
				n.OVSGRE = cnitest.Conf{"type": main, "nodes": nil, "datapathType": nil, "capabilities": nil,
					"ipam": cnitest.Conf{"type": "host-local", "subnet": n.Subnets(i)[0], "routes": []cnitest.Conf{{"dst": "0.0.0.0/0"}}}}
				switch main {
				case "bridge":
					n.OVSGRE["isGateway"] = true
				case "macvlan":
					// On a link of the host, which has a macvlan of its own, the gateway.
					n.OVSGRE["master"], n.OVSGRE["mode"] = "lan", "bridge"
					h.Shell(t, fmt.Sprintf(`ip link add lan type veth peer name wire; ip link set wire up; ip link set lan up; ip link add gw link lan type macvlan mode bridge
						ip addr add 192.168.%d.1/24 dev gw; ip link set gw up; sysctl -qw net.ipv4.ip_forward=1`, i+1))
				}
				h.WriteFile(t, "/etc/cni/net.d/10-ovsnet.conflist", n.Conflist(l))
			}
			cs := one(t, l, "ovsnet")
			second := cnitest.Add(t, l.Hosts[0], "ovsnet", "second")
			for _, from := range append(cs, second) {
				for _, to := range append(cs, second) {
					reach(t, from.Name+" to "+to.Name, from, to.Addr(t, false))
					reach(t, from.Host.Name+" to "+to.Name, from.Host, to.Addr(t, false))
				}
				if err := from.Call("check"); err != nil {
					t.Errorf("CHECK: %v", err)
				}
			}
			routes := func() int {
				return strings.Count(l.Hosts[0].Run(t, "ip", "route", "show", "proto", "121"), "via")
			}
			del(t, second)
			if routes() != 2 {
				t.Errorf("want two routes while a container is there, there are %d", routes())
			}
			del(t, cs[0])
			if routes() != 0 {
				t.Errorf("want no route after the last container, there are %d", routes())
			}
			if left := l.Hosts[0].Shell(t, "find /run/ovs-gre ! -type d 2>/dev/null || true"); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}
