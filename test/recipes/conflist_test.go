package recipes

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// examples are the conflists that the project ships: every file of the
// directory has a place here.
var examples = map[string]struct {
	// noOVS: it is for hosts without Open vSwitch.
	noOVS bool
	// docker: Docker Engine holds the bridge.
	docker bool
	// version is the version of the result; "" is 1.0.0.
	version string
	// keyed: the hosts' public keys are put into it first.
	keyed bool
	// tunnel is tcpdump's filter for what carries the pings; "" is none.
	tunnel string
}{
	"gre":           {tunnel: "ip proto 47"},
	"gre-1.1.0":     {tunnel: "ip proto 47", version: "1.1.0"},
	"vxlan":         {tunnel: "udp dst port 4789"},
	"geneve":        {tunnel: "udp dst port 6081"},
	"wireguard":     {tunnel: "udp dst port 51820", keyed: true},
	"one-port":      {tunnel: "ip proto 47"},
	"fan":           {tunnel: "ip proto 47"},
	"mesh":          {tunnel: "ip proto 47"},
	"container":     {tunnel: "ip proto 47"},
	"static-routes": {noOVS: true},
	"docker0":       {docker: true, tunnel: "ip proto 47"},
	"nerdctl":       {tunnel: "ip proto 47"},
}

// TestConflists runs every conflist of the project as it is on the hosts that
// it names: ADD, CHECK, ping all pairs, DEL, and nothing is left.
func TestConflists(t *testing.T) {
	files, err := filepath.Glob(examplePath(t, "*.conflist"))
	if err != nil || len(files) != len(examples) {
		t.Fatalf("the examples are %v (%v), this test knows %d", files, err, len(examples))
	}
	for _, file := range files {
		name := filepath.Base(file[:len(file)-len(".conflist")])
		t.Run(name, func(t *testing.T) {
			e, ok := examples[name]
			if !ok {
				t.Fatal("this test does not know it")
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			nodes := parsed(t, raw, e.version)
			o := testnet.Options{Hosts: len(nodes), PluginDir: cnitest.BinDir(t), NoOVS: e.noOVS, FirstHost: int(nodes[0].Address.As4()[3])}
			o.Prefix4, _ = nodes[0].Address.Prefix(24)
			l := testnet.New(t, o)
			var before []string
			for i, h := range l.Hosts {
				if h.Addr4 != nodes[i].Address {
					t.Fatalf("%s has the address %s, want %s", h.Name, h.Addr4, nodes[i])
				}
				if e.docker {
					gw := netip.PrefixFrom(nodes[i].Gateways()[0], nodes[i].Subnets[0].Bits())
					startDocker(t, h, "--bip="+gw.String())
				}
				h.WriteFile(t, confPath, forHost(t, l, string(raw), nodes[i]))
				before = append(before, snapshot(t, h))
			}
			for range 2 { // the second time is as the first
				if e.keyed {
					keyed(t, l, string(raw), nodes)
				}
				wire := l.Capture(t, e.tunnel)
				var cs []*cnitest.Container
				for i, h := range l.Hosts {
					cs = append(cs, cnitest.Add(t, h, "ovsnet", fmt.Sprintf("c%d", i+1)))
				}
				for _, from := range cs {
					if want := cmpOr(e.version, "1.0.0"); from.Result.CNIVersion != want {
						t.Errorf("%s: the result's version is %q, want %q", from.Host.Name, from.Result.CNIVersion, want)
					}
					if err := from.Call("check"); err != nil {
						t.Errorf("CHECK on %s: %v", from.Host.Name, err)
					}
					for i, to := range cs {
						addrs := addrs(t, to)
						if len(addrs) != len(nodes[i].Subnets) {
							t.Errorf("%s: want an address in each of %v, there are %v", to.Host.Name, nodes[i].Subnets, addrs)
						}
						for k, a := range addrs {
							if !nodes[i].Subnets[k].Contains(a) {
								t.Errorf("%s: %s is not in %s", to.Host.Name, a, nodes[i].Subnets[k])
							}
							reach(t, from.Name+" to "+to.Name, from, a)
							reach(t, from.Host.Name+" to "+to.Name, from.Host, a)
						}
					}
					reach(t, from.Name+" to the world", from, l.Underlay.Addr4)
				}
				// No less than a request and a reply of each pair; nothing where there are no tunnels.
				if lines := wire.Stop(t); e.tunnel != "" && len(lines) < 2*len(cs)*(len(cs)-1) {
					t.Errorf("the pings were not in tunnels: %d packets of %s", len(lines), e.tunnel)
				}
				for _, c := range slices.Backward(cs) {
					if err := c.Call("del"); err != nil {
						t.Errorf("DEL on %s: %v", c.Host.Name, err)
					}
					c.Delete(t)
				}
				if e.noOVS {
					// The plugin bridge leaves its bridge and its masquerade's chain.
					for _, h := range l.Hosts {
						if left := h.Shell(t, "ip route show proto 121; find /run/ovs-gre ! -type d 2>/dev/null || true"); left != "" {
							t.Errorf("%s: left: %s", h.Name, left)
						}
					}
					continue
				}
				for i, h := range l.Hosts {
					unchanged(t, h, before[i])
				}
			}
		})
	}
}

// keyed puts into a conflist what ovs-grectl key prints on each host.
func keyed(t *testing.T, l *testnet.Lab, raw string, nodes []config.Node) {
	t.Helper()
	for _, h := range l.Hosts {
		cnitest.StartWireGuard(t, h, "ovsnet", "obr0")
	}
	for host, key := range cnitest.Keys(t, l.Hosts) {
		raw = strings.Replace(raw, fmt.Sprintf("{%q: %q", "name", host), fmt.Sprintf("{%q: %q, %q: %q", "key", key, "name", host), 1)
	}
	for i, h := range l.Hosts {
		h.WriteFile(t, confPath, forHost(t, l, raw, nodes[i]))
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// parsed wants a conflist to be one that our own parsers take, of the version
// that every runtime takes, and returns its nodes.
func parsed(t *testing.T, raw []byte, version string) []config.Node {
	t.Helper()
	list, err := config.ParseList(raw)
	if err != nil {
		t.Fatal(err)
	}
	if want := cmpOr(version, "1.0.0"); list.CNIVersion != want {
		t.Errorf("version %q, want %q", list.CNIVersion, want)
	}
	var nodes []config.Node
	if p := list.Find("ovs-gre"); p != nil {
		c, err := config.Parse(p.Raw)
		if err != nil {
			t.Fatal(err)
		}
		nodes = c.Nodes
		for i := 0; i < 3 && !c.Fan.IsZero(); i++ { // any three will do
			n, _ := c.Fan.Node(netip.AddrFrom4([4]byte{172, 16, 32, byte(100 + i)}))
			nodes = append(nodes, n)
		}
	}
	p := list.Find("route-sync")
	if p == nil {
		t.Fatal("no route-sync")
	}
	c, err := config.ParseRoutes(p.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if nodes == nil {
		nodes = c.Nodes
	}
	if len(nodes) < 2 {
		t.Fatalf("nodes: %v", nodes)
	}
	return nodes
}

// forHost is the conflist as it is on one host. Only one thing differs between
// hosts: the subnet of host-local behind a plugin that knows no nodes.
func forHost(t *testing.T, l *testnet.Lab, conflist string, n config.Node) string {
	t.Helper()
	return edit(t, onDatapath(t, l, conflist), func(p map[string]any) {
		if ipam, ok := p["ipam"].(map[string]any); ok && ipam["subnet"] != nil {
			ipam["subnet"] = n.Subnets[0].String()
		}
	})
}

// addrs are a container's addresses.
func addrs(t *testing.T, c *cnitest.Container) []netip.Addr {
	t.Helper()
	var list []netip.Addr
	for _, ip := range c.Result.IPs {
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			t.Fatalf("%v is no address", ip)
		}
		list = append(list, a.Unmap())
	}
	return list
}
