package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestNodes changes who is in the network while containers run. The next ADD
// on a host follows.
func TestNodes(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	all := cnitest.Network{}.NodeList(l)
	for _, tt := range []struct {
		name string
		// tell lets the hosts know who is in the network.
		tell func(t *testing.T, nodes []cnitest.Conf)
	}{
		{"nodes", func(t *testing.T, nodes []cnitest.Conf) {
			cnitest.Network{OVSGRE: cnitest.Conf{"nodes": nodes}}.Install(t, l)
		}},
		{"nodesFile", func(t *testing.T, nodes []cnitest.Conf) {
			cnitest.Network{OVSGRE: cnitest.Conf{"nodes": nil, "nodesFile": "/etc/cni/nodes.json"}}.Install(t, l)
			raw, err := json.Marshal(nodes)
			must(t, err)
			for _, h := range l.Hosts {
				h.WriteFile(t, "/etc/cni/nodes.json", string(raw))
			}
		}},
		{"nodesFile of both plugins", func(t *testing.T, nodes []cnitest.Conf) {
			file := cnitest.Conf{"nodes": nil, "nodesFile": "/etc/cni/nodes.json"}
			cnitest.Network{OVSGRE: file, RouteSync: file}.Install(t, l)
			raw, err := json.Marshal(nodes)
			must(t, err)
			for _, h := range l.Hosts {
				h.WriteFile(t, "/etc/cni/nodes.json", string(raw))
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var cs []*cnitest.Container
			attach := func(i int, name string) *cnitest.Container {
				c := cnitest.Add(t, l.Hosts[i], "ovsnet", name)
				cs = append(cs, c)
				return c
			}
			tt.tell(t, all[:2])
			c1, c2 := attach(0, "c1"), attach(1, "c2")
			both(t, c1, c2)
			peers(t, l, 0, 1)
			peers(t, l, 1, 0)

			tt.tell(t, all) // the third comes
			c3 := attach(2, "c3")
			both(t, attach(0, "c4"), c3)
			peers(t, l, 0, 1, 2)
			both(t, c1, c2) // as before
			both(t, c1, c3) // the old container, too
			attach(1, "c5")
			both(t, c2, c3)

			tt.tell(t, []cnitest.Conf{all[0], all[2]}) // the second goes
			both(t, attach(0, "c6"), c3)
			peers(t, l, 0, 2)
			both(t, c1, c3)

			tt.tell(t, all) // and comes back
			attach(0, "c7")
			peers(t, l, 0, 1, 2)
			both(t, c1, c2)
			for _, c := range cs {
				del(t, c)
			}
			for i := range l.Hosts {
				peers(t, l, i)
			}
		})
	}
	t.Run("address", func(t *testing.T) { moved(t, l) })
}

// both pings both ways in both families.
func both(t *testing.T, a, b *cnitest.Container) {
	t.Helper()
	for _, v6 := range families {
		reach(t, a.Name+" to "+b.Name, a, b.Addr(t, v6))
		reach(t, b.Name+" to "+a.Name, b, a.Addr(t, v6))
	}
}

// peers wants a host to have tunnels, routes and neighbours of exactly these others.
func peers(t *testing.T, l *testnet.Lab, at int, others ...int) {
	t.Helper()
	h := l.Hosts[at]
	tunnels := h.Shell(t, "ovs-vsctl --columns=options --format=csv --no-headings find interface type=gre")
	routes := h.Shell(t, "ip route show proto 121; ip -6 route show proto 121")
	neighs := h.Shell(t, "ip neigh show nud permanent")
	count := func(what, in, text string, want int) {
		t.Helper()
		if n := strings.Count(in, text); n != want {
			t.Errorf("%s: want %d %s with %q, got:\n%s", h.Name, want, what, text, in)
		}
	}
	is := map[int]int{}
	for _, o := range others {
		is[o] = 1
	}
	for i, o := range l.Hosts {
		if i == at {
			continue
		}
		count("tunnel", tunnels, fmt.Sprintf(`remote_ip=""%s""`, o.Addr4), is[i])
		for _, s := range cnitest.Subnets(i) {
			count("route", routes, s+" ", is[i])
		}
		count("neighbour", neighs, o.Addr4.String()+" ", is[i])
		count("neighbour", neighs, config.LinkLocal(config.MAC(o.Addr4)).String()+" ", is[i])
	}
}

// moved gives a peer another address.
func moved(t *testing.T, l *testnet.Lab) {
	const address = "172.16.32.201"
	cnitest.Network{}.Install(t, l)
	cs := one(t, l, "ovsnet")
	both(t, cs[0], cs[1])
	h := l.Hosts[1]
	h.Shell(t, "ip address add "+address+"/24 dev "+h.UnderlayLink)
	if l.Datapath == testnet.DatapathNetdev {
		// The underlay's business: the userspace datapath may take its time to learn.
		for _, o := range []*testnet.Host{l.Hosts[0], l.Hosts[2]} {
			o.Shell(t, "ovs-appctl tnl/neigh/set br-phy "+address+" "+underlayMAC(t, h))
		}
	}
	nodes := cnitest.Network{}.NodeList(l)
	nodes[1]["address"] = address
	cnitest.Network{OVSGRE: cnitest.Conf{"nodes": nodes}}.Install(t, l)
	for _, o := range l.Hosts {
		cnitest.Add(t, o, "ovsnet", "more")
	}
	wire := l.Capture(t, gre)
	both(t, cs[0], cs[1])
	both(t, cs[2], cs[1])
	lines := wire.Stop(t)
	if seen(lines, address) == 0 || seen(lines, h.Addr4.String()) != 0 {
		t.Errorf("want GRE packets from and to %s, none of %s:\n%s", address, h.Addr4, strings.Join(lines, "\n"))
	}
}

func underlayMAC(t *testing.T, h *testnet.Host) string {
	t.Helper()
	return strings.TrimSpace(h.Shell(t, "ip -o link show "+h.UnderlayLink+" | sed 's/.*ether //; s/ .*//'"))
}
