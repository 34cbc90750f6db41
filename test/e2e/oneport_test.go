package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// ports installs a network whose hosts have their tunnels as kinds says, in turn.
func ports(t *testing.T, l *testnet.Lab, n cnitest.Network, tunnel cnitest.Conf, kinds ...string) {
	t.Helper()
	for i, h := range l.Hosts {
		conf := cnitest.Conf{"ports": kinds[i%len(kinds)]}
		for k, v := range tunnel {
			conf[k] = v
		}
		keys := cnitest.Conf{"tunnel": conf}
		for k, v := range n.OVSGRE {
			keys[k] = v
		}
		of := n
		of.OVSGRE = keys
		h.WriteFile(t, "/etc/cni/net.d/10-ovsnet.conflist", of.Conflist(l))
	}
}

// TestOnePort: hosts with one tunnel port for all peers reach each other, and
// those with a port a peer, and CHECK finds nothing.
func TestOnePort(t *testing.T) {
	t.Parallel()
	l := lab(t, 4)
	for _, typ := range []string{"gre", "vxlan", "geneve"} {
		for _, underlay6 := range families {
			for _, segment := range []string{"host", "container"} {
				t.Run(fmt.Sprintf("%s over %s, segment %s", typ, familyName(underlay6), segment), func(t *testing.T) {
					n := cnitest.Network{V6: underlay6, OVSGRE: cnitest.Conf{"segment": segment}}
					ports(t, l, n, cnitest.Conf{"type": typ}, "one", "peer")
					cs := cnitest.AddAll(t, l, "ovsnet")
					cnitest.AllReach(t, cs)
					for _, c := range cs {
						if err := c.Call("check"); err != nil {
							t.Errorf("%s: CHECK: %v", c.Host.Name, err)
						}
					}
					first := l.Hosts[0]
					// 192.168.2.0/24 to 192.168.4.0/24, as few as hold just these.
					out := strings.Fields(first.Shell(t, "ip route show proto 121 dev obr0-t | cut -d' ' -f 1 | sort"))
					if want := []string{"192.168.2.0/23", "192.168.4.0/24"}; !slices.Equal(out, want) {
						t.Errorf("routes to %q, want %q", out, want)
					}
					if out := first.Shell(t, "ovs-vsctl list-ports obr0-t"); strings.TrimSpace(out) != config.OneTunnelName("ovsnet") {
						t.Errorf("the tunnels' bridge has the ports %q, want one", out)
					}
					for _, c := range cs {
						del(t, c)
					}
				})
			}
		}
	}
}

// TestChangePorts: a host goes from a port a peer to one port, and back, with its
// containers attached.
func TestChangePorts(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	ports(t, l, cnitest.Network{}, nil, "peer")
	cs := cnitest.AddAll(t, l, "ovsnet")
	for _, kind := range []string{"one", "peer", "one"} {
		for i, h := range l.Hosts {
			h.WriteFile(t, "/etc/cni/net.d/10-ovsnet.conflist",
				cnitest.Network{OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"ports": kind}}}.Conflist(l))
			sent, answered := cnitest.During(t, cs[(i+1)%3], cs[i], time.Minute, func() {
				if i == 0 {
					late := cnitest.Add(t, h, "ovsnet", "late")
					del(t, late)
					return
				}
				h.Run(t, "/opt/cni/bin/ovs-grectl", "up", "/etc/cni/net.d/10-ovsnet.conflist")
			})
			fmt.Printf("change to ports %s: of %d pings, one every 50 ms, %d were answered\n", kind, sent, answered)
			cnitest.AllReach(t, cs)
		}
		for _, c := range cs {
			if err := c.Call("check"); err != nil {
				t.Errorf("%s: CHECK with ports %s: %v", c.Host.Name, kind, err)
			}
		}
	}
}

// TestPortsCrossed: of two networks of the same type and key OVS gives all packets
// to the one that has a port a peer. The second is refused, whichever it is.
func TestPortsCrossed(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	for _, kinds := range [][2]string{{"peer", "one"}, {"one", "peer"}, {"one", "one"}} {
		first := cnitest.Network{OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"ports": kinds[0]}}}
		second := cnitest.Network{Name: "second", OVSGRE: cnitest.Conf{"bridge": "obr1", "tunnel": cnitest.Conf{"ports": kinds[1]}},
			Subnets: func(i int) []string { return []string{fmt.Sprintf("10.9.%d.0/24", i)} }}
		first.Install(t, l)
		cs := one(t, l, "ovsnet")
		c := h.NewNetns(t, "other")
		before := snapshot(t, h)
		_, err := call(c, "ovs-gre", "ADD", cnitest.PluginConf(t, second.Conflist(l), "ovs-gre", nil))
		if err == nil || !strings.Contains(err.Error(), "tunnel.key") {
			t.Errorf("%s beside %s: %v, want a word about tunnel.key", kinds[1], kinds[0], err)
		}
		unchanged(t, h, before)
		for _, kind := range kinds { // with keys both do
			keyed := cnitest.PluginConf(t, second.Conflist(l), "ovs-gre", cnitest.Conf{"tunnel": cnitest.Conf{"ports": kind, "key": 2}})
			result(t, c, "ovs-gre", keyed)
			cnitest.AllReach(t, cs)
			if _, err := call(c, "ovs-gre", "DEL", keyed); err != nil {
				t.Error(err)
			}
		}
		c.Delete(t)
		for _, c := range cs {
			del(t, c)
		}
	}
}
