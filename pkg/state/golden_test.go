package state_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/state"
	"ovs-gre-cni/test/golden"
)

// nodesJSON lists hosts hostN, N from 1 to n. Underlay is 4 or 6, families
// are "v4", "v6" or "dual".
func nodesJSON(n, underlay int, families string) string {
	var list []string
	for i := 1; i <= n; i++ {
		address := fmt.Sprintf("172.16.32.%d", 100+i)
		if underlay == 6 {
			address = fmt.Sprintf("fd00:32::%d", 100+i)
		}
		v4, v6 := fmt.Sprintf(`"192.168.%d.0/24"`, i), fmt.Sprintf(`"fd00:%d::/64"`, i)
		subnets := map[string]string{"v4": v4, "v6": v6, "dual": v6 + "," + v4}[families]
		list = append(list, fmt.Sprintf(`{"name":"host%d","address":%q,"subnets":[%s]}`, i, address, subnets))
	}
	return "[" + strings.Join(list, ",") + "]"
}

// network parses a configuration of ovs-gre with the given further keys, and
// takes the first node for this host.
func network(t testing.TB, list, keys string) (*config.Network, nodes.Topology) {
	t.Helper()
	c, err := config.Parse([]byte(`{"cniVersion":"1.0.0","name":"ovsnet","type":"ovs-gre","nodes":` + list + keys + `}`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := nodes.Resolve(c.Nodes, "", []netip.Addr{c.Nodes[0].Address})
	if err != nil {
		t.Fatal(err)
	}
	return c, m
}

// fanNetwork is network without a list of nodes, on the host 172.16.3.7.
func fanNetwork(t testing.TB, fan, keys string) (*config.Network, nodes.Topology) {
	t.Helper()
	c, err := config.Parse([]byte(`{"cniVersion":"1.0.0","name":"ovsnet","type":"ovs-gre","nodes":` + fan + keys + `}`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := nodes.Find(&c.Base, []netip.Addr{mustAddr("127.0.0.1"), mustAddr("172.16.3.7")})
	if err != nil {
		t.Fatal(err)
	}
	return c, m
}

func routesConfig(t testing.TB, keys string) *config.Routes {
	t.Helper()
	c, err := config.ParseRoutes([]byte(`{"cniVersion":"1.0.0","name":"ovsnet","type":"route-sync"` + keys + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mtu(t testing.TB, c *config.Network, m nodes.Topology) int {
	t.Helper()
	n, err := state.MTU(c, m, 1500)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var (
	segments  = []string{"host", "mesh", "container"}
	tunnels   = []string{"gre", "vxlan", "geneve", "none"}
	underlays = []int{4, 6}
	families  = []string{"v4", "v6", "dual"}
)

// combination calls f with every combination that the configuration allows.
func combinations(segment string, f func(tunnel string, underlay int, families string)) {
	for _, tun := range tunnels {
		for _, under := range underlays {
			for _, fam := range families {
				if segment != "mesh" || tun != "none" {
					f(tun, under, fam)
				}
			}
		}
	}
}

func TestDesired(t *testing.T) {
	for _, seg := range segments {
		var b strings.Builder
		combinations(seg, func(tun string, under int, fam string) {
			c, m := network(t, nodesJSON(2, under, fam), fmt.Sprintf(`,"segment":%q,"tunnel":{"type":%q}`, seg, tun))
			fmt.Fprintf(&b, "## segment %s, tunnel %s, underlay IPv%d, containers %s\n%s\n", seg, tun, under, fam, state.Desired(c, m, mtu(t, c, m)))
		})
		golden.Compare(t, "testdata/desired-"+seg+".golden", b.String())
	}
}

func TestDesiredOptions(t *testing.T) {
	var b strings.Builder
	for _, keys := range []string{
		`,"linuxBridge":"docker0"`,
		`,"linuxBridge":"br0","segment":"mesh"`,
		`,"adoptBridge":true,"bridge":"br-ex.1","datapathType":"netdev"`,
		`,"adoptBridge":true,"segment":"mesh"`,
		`,"datapathType":"netdev","bridge":"thirteenchars","mtu":1400`,
		`,"tunnel":{"key":4294967295,"csum":true,"bfd":true},"datapathType":"netdev"`,
		`,"tunnel":{"type":"vxlan","key":0,"port":8472}`,
		`,"tunnel":{"type":"geneve","csum":true,"port":1,"bfd":true}`,
		`,"tunnel":{"ports":"one","key":7}`,
		`,"tunnel":{"ports":"one","type":"geneve"},"segment":"container"`,
		`,"ipMasq":true`,
		`,"ipMasq":true,"noMasqueradeCIDRs":["10.0.0.0/8","192.168.0.0/16","10.1.0.0/16","fd00::/8","192.168.0.0/16"]`,
		`,"noMasqueradeCIDRs":["10.0.0.0/8"]`,
	} {
		c, m := network(t, nodesJSON(3, 4, "dual"), keys)
		fmt.Fprintf(&b, "## %s\n%s\n", keys[1:], state.Desired(c, m, mtu(t, c, m)))
	}
	for _, fam := range []string{"v4", "v6"} {
		c, m := network(t, nodesJSON(2, 4, fam), `,"ipMasq":true,"tunnel":{"type":"none"}`)
		fmt.Fprintf(&b, "## masquerade of %s containers\n%s\n", fam, state.Desired(c, m, mtu(t, c, m)))
	}
	c, m := network(t, nodesJSON(2, 4, "v4"), `,"node":"host2"`)
	m.Local = false
	fmt.Fprintf(&b, "## behind a NAT: no local_ip\n%s\n", state.Desired(c, m, mtu(t, c, m)))
	c, m = network(t, nodesJSON(1, 4, "v4"), ``)
	fmt.Fprintf(&b, "## alone\n%s\n", state.Desired(c, m, mtu(t, c, m)))
	c, m = network(t, nodesJSON(3, 6, "dual"), `,"tunnel":{"ports":"one"}`)
	fmt.Fprintf(&b, "## one port over IPv6\n%s\n", state.Desired(c, m, mtu(t, c, m)))
	c, m = network(t, nodesJSON(1, 4, "v4"), `,"tunnel":{"ports":"one"}`)
	fmt.Fprintf(&b, "## one port and no peer\n%s\n", state.Desired(c, m, mtu(t, c, m)))
	golden.Compare(t, "testdata/desired-options.golden", b.String())

	b.Reset()
	for _, fan := range fans {
		c, m := fanNetwork(t, fan, `,"ipMasq":true,"segment":"container"`)
		fmt.Fprintf(&b, "## %s\n%s\n", fan, state.Desired(c, m, mtu(t, c, m)))
		for _, w := range []state.NextHops{ways(c, m), {}, {Sources: m.Self.Gateways(), Segment: "obr0"}} {
			s, err := state.DesiredRoutes(routesConfig(t, ""), m, w)
			fmt.Fprintf(&b, "# routes by %q: %v\n%s\n", w.Transit, err, s)
		}
		_, err := state.DesiredRoutes(routesConfig(t, `,"mode":"auto"`), m, ways(c, m))
		fmt.Fprintf(&b, "# mode auto: %v\n\n", err)
	}
	golden.Compare(t, "testdata/desired-fan.golden", b.String())
}

// fans are nodes without a list.
var fans = []string{
	`{"underlay":"172.16.0.0/16","containers":"10.0.0.0/8"}`,
	`{"underlay":"172.16.0.0/20","containers":"10.64.0.0/13"}`,
	`{"underlay":"172.16.3.4/30","containers":"192.168.0.0/16"}`,
}

// TestDesiredWireGuard has a peer with a key and one without.
func TestDesiredWireGuard(t *testing.T) {
	var b strings.Builder
	for _, keys := range []string{
		`,"tunnel":{"type":"wireguard"}`,
		`,"tunnel":{"type":"wireguard","port":1,"keepalive":25},"segment":"container","bridge":"thirteenchars"`,
	} {
		for _, under := range underlays {
			nodes := strings.Replace(nodesJSON(3, under, "dual"), `"name":"host2"`, `"name":"host2","key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="`, 1)
			c, m := network(t, nodes, keys)
			fmt.Fprintf(&b, "## %s, underlay IPv%d\n%s\n", keys[1:], under, state.Desired(c, m, mtu(t, c, m)))
			if u := state.Unkeyed(m); len(u) != 1 || u[0].Name != "host3" {
				t.Errorf("without a key: %v, want host3", u)
			}
		}
	}
	golden.Compare(t, "testdata/desired-wireguard.golden", b.String())
}

// way is what a host has where the segment is seg.
func ways(c *config.Network, m nodes.Topology) state.NextHops {
	gw := state.GatewayLink(c)
	w := state.NextHops{Sources: m.Self.Gateways(), Underlay: "eth0", Gateway4: gw, Gateway6: gw}
	switch {
	case c.Tunnel.Type == config.TunnelNone:
	case state.UsesTunnelBridge(c):
		w.Transit = config.TransitLink(c.Bridge)
	default:
		w.Segment = state.GatewayLink(c)
	}
	return w
}

func TestDesiredRoutes(t *testing.T) {
	for _, mode := range []string{"tunnel", "direct", "auto"} {
		rc := routesConfig(t, fmt.Sprintf(`,"mode":%q`, mode))
		var b strings.Builder
		for _, seg := range append(segments, "none") {
			for _, under := range underlays {
				for _, fam := range families {
					keys := fmt.Sprintf(`,"segment":%q`, seg)
					if seg == "none" {
						keys = `,"tunnel":{"type":"none"}`
					}
					c, m := network(t, nodesJSON(3, under, fam), keys)
					w := ways(c, m)
					// host2 is on this host's underlay subnet, host3 is not.
					near := netip.PrefixFrom(m.Peers[0].Address, m.Peers[0].Address.BitLen())
					w.Connected = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), near}
					s, err := state.DesiredRoutes(rc, m, w)
					fmt.Fprintf(&b, "## mode %s, segment %s, underlay IPv%d, containers %s\n%s", mode, seg, under, fam, s)
					if err != nil {
						fmt.Fprintf(&b, "# error: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n# error: "))
					}
					fmt.Fprintln(&b)
				}
			}
		}
		golden.Compare(t, "testdata/routes-"+mode+".golden", b.String())
	}
}

func TestDesiredRoutesOptions(t *testing.T) {
	var b strings.Builder
	c, m := network(t, nodesJSON(2, 4, "v4"), "")
	show := func(title string, rc *config.Routes, w state.NextHops) {
		s, err := state.DesiredRoutes(rc, m, w)
		fmt.Fprintf(&b, "## %s\n%s%v\n\n", title, s, err)
	}
	show("table and metric", routesConfig(t, `,"table":100,"metric":50`), ways(c, m))
	show("table local", routesConfig(t, `,"table":"local"`), ways(c, m))
	show("no gateway address yet", routesConfig(t, ""), state.NextHops{Transit: "obr0-t"})
	w := ways(c, m)
	w.OneTunnel = true
	_, m = network(t, nodesJSON(9, 4, "dual"), "")
	w.Sources = m.Self.Gateways()
	show("one port: as few routes as lead to the same addresses", routesConfig(t, `,"table":100`), w)
	w.Connected = []netip.Prefix{netip.MustParsePrefix("172.16.32.104/30")}
	show("one port, some peers near", routesConfig(t, `,"mode":"auto"`), w)
	_, m = network(t, nodesJSON(2, 4, "v4"), "")
	show("no tunnels", routesConfig(t, ""), state.NextHops{Sources: m.Self.Gateways()})
	_, m = network(t, `[{"name":"host1","address":"172.16.32.101","subnets":["192.168.1.0/24"]},{"name":"host2","address":"172.16.32.102","subnets":["192.168.2.0/24","fd00:2::/64"]}]`, "")
	show("a family that this host has no containers of", routesConfig(t, ""), ways(c, m))
	_, m = network(t, nodesJSON(20, 4, "dual"), "")
	show("many errors", routesConfig(t, ""), state.NextHops{Sources: m.Self.Gateways()})
	golden.Compare(t, "testdata/routes-options.golden", b.String())
}

var mustAddr, mustPrefix = netip.MustParseAddr, netip.MustParsePrefix

// TestMACTable: a bridge can know all that is behind its ports.
func TestMACTable(t *testing.T) {
	for _, tt := range []struct {
		nodes    int
		segment  string
		want     int
		elements string
	}{
		{32, "mesh", 0, "8,192 containers, OVS's default"},
		{40, "mesh", 40 * 256, "256 containers a host"},
		{10000, "mesh", 1_000_000, "no more than OVS takes"},
		{10000, "host", 10000, "the hosts' transit links"},
	} {
		c, m := network(t, manyNodes(tt.nodes), fmt.Sprintf(`,"segment":%q`, tt.segment))
		b, ok := state.Desired(c, m, 1400)[state.ID{Kind: state.KindBridge, Name: state.TunnelBridge(c)}].(state.Bridge)
		if !ok || b.MACTable != tt.want || tt.want != 0 && !strings.Contains(b.String(), fmt.Sprintf("mac-table-size=%d", tt.want)) {
			t.Errorf("%d nodes, segment %s: %d, want %d for %s: %s", tt.nodes, tt.segment, b.MACTable, tt.want, tt.elements, b)
		}
	}
}

// TestDesiredTunnelOptions: further options go to every tunnel, and a secret's place,
// not the secret, is in its command.
func TestDesiredTunnelOptions(t *testing.T) {
	c, m := network(t, nodesJSON(3, 4, "v4"), `,"tunnel":{"options":{"ttl":64,"psk":{"file":"/etc/it's a/psk"}}}`)
	var b strings.Builder
	fmt.Fprintf(&b, "## a port a peer\n%s\n", state.Desired(c, m, mtu(t, c, m)))
	c, m = network(t, nodesJSON(3, 4, "v4"), `,"tunnel":{"ports":"one","options":{"ttl":64,"df_default":"false"}}`)
	fmt.Fprintf(&b, "## one port\n%s\n", state.Desired(c, m, mtu(t, c, m)))
	for _, keys := range []string{
		`,"tunnel":{"type":"geneve","options":{"remote_cert":"/x.pem"}},"segment":"container"`,
		`,"tunnel":{"type":"vxlan","options":{"psk":{"file":"/x"}}},"segment":"mesh","linuxBridge":"br0"`,
	} {
		c, m = network(t, nodesJSON(2, 6, "dual"), keys)
		fmt.Fprintf(&b, "## %s\n%s\n", keys[1:], state.Desired(c, m, mtu(t, c, m)))
	}
	golden.Compare(t, "testdata/desired-tunnel-options.golden", b.String())
	c, m = network(t, nodesJSON(2, 6, "v4"), `,"tunnel":{"options":{"psk":{"file":"/x"}}}`)
	if err := state.CheckIPsec(c, m); !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), "GRE over IPv6") {
		t.Errorf("GRE over IPv6: %v", err)
	}
}
