package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// Codes of CNI errors, of the specification and ours.
const (
	unsupported = 2
	invalid     = 7
	badNetns    = 8
	tryAgain    = 11
	refused     = 101
	foreign     = 102
)

// node is an entry of nodes.
func node(name, address string, subnets ...string) cnitest.Conf {
	return cnitest.Conf{"name": name, "address": address, "subnets": subnets}
}

// TestErrors calls ADD where it cannot work. It says why, and the host is as
// it was before.
func TestErrors(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	conflist := cnitest.Network{}.Conflist(l)
	conf := func(more cnitest.Conf) string { return cnitest.PluginConf(t, conflist, "ovs-gre", more) }
	c := h.NewNetns(t, "c1")
	here, there := h.Addr4.String(), l.Hosts[1].Addr4.String()
	nodes := func(list ...cnitest.Conf) cnitest.Conf { return cnitest.Conf{"nodes": list} }
	h.WriteFile(t, "/etc/cni/garbage.json", `[{"name":"host1","address":`)
	h.WriteFile(t, "/etc/cni/wrong.json", `[{"name":"host1","address":"`+here+`","subnets":["192.168.1.0/33"]}]`)
	h.Shell(t, "touch /run/file")

	tests := []struct {
		name   string
		conf   cnitest.Conf
		before string // a script for the host
		after  string // that takes it back
		env    []string
		code   uint
		says   []string
	}{
		{name: "no entry for this host", conf: nodes(node("other", "172.16.32.99", "192.168.9.0/24")), code: invalid,
			says: []string{"nodes", "no entry for this host", here, h.Addr6.String()}},
		{name: "node of another name", conf: cnitest.Conf{"node": "host7"}, code: invalid, says: []string{`node "host7"`}},
		{name: "two nodes with one address", conf: nodes(node("a", here, "192.168.1.0/24"), node("b", here, "192.168.2.0/24")), code: invalid,
			says: []string{"nodes[1].address", here, "belongs to a already"}},
		{name: "overlapping subnets", conf: nodes(node("a", here, "192.168.0.0/16"), node("b", there, "192.168.2.0/24")), code: invalid,
			says: []string{"nodes[1].subnets", "192.168.2.0/24", "overlaps 192.168.0.0/16 of a"}},
		{name: "subnet with host bits", conf: nodes(node("a", here, "192.168.1.7/24")), code: invalid,
			says: []string{"nodes[0]", "subnets[0]", "192.168.1.7/24", "want 192.168.1.0/24"}},
		{name: "everything at once", conf: cnitest.Conf{"mtu": 99, "bridge": "a-name-that-is-too-long", "nodes": []cnitest.Conf{node("a", "x", "192.168.1.0/24")}}, code: invalid,
			says: []string{"mtu 99", "bridge", "a-name-that-is-too-long", "nodes[0]", `"x"`}},
		{name: "unknown tunnel type", conf: cnitest.Conf{"tunnel": cnitest.Conf{"type": "grr"}}, code: unsupported, says: []string{`tunnel.type "grr"`, "want gre, vxlan"}},
		{name: "unknown segment", conf: cnitest.Conf{"segment": "rack"}, code: unsupported, says: []string{`segment "rack"`, "host, mesh or container"}},
		{name: "typo", conf: cnitest.Conf{"ipMask": true}, code: invalid, says: []string{"ipMask: unknown key", `did you mean "ipMasq"?`}},
		{name: "typo inside", conf: cnitest.Conf{"tunnel": cnitest.Conf{"kye": 7}}, code: invalid, says: []string{"tunnel.kye: unknown key", `did you mean "tunnel.key"?`}},
		{name: "MTU that does not fit", conf: cnitest.Conf{"mtu": 1463}, code: invalid, says: []string{"mtu 1463: does not fit", "1500", "38", "1462"}},
		{name: "MTU that does not fit with key", conf: cnitest.Conf{"mtu": 1462, "tunnel": cnitest.Conf{"key": 7}}, code: invalid, says: []string{"mtu 1462: does not fit", "1500", "42", "1458"}},
		{name: "MTU too small for IPv6", conf: cnitest.Conf{"mtu": 1279}, code: invalid, says: []string{"mtu 1279", "1280", "IPv6"}},
		{name: "nodesFile absent", conf: cnitest.Conf{"nodes": nil, "nodesFile": "/etc/cni/absent.json"}, code: tryAgain, says: []string{"nodesFile /etc/cni/absent.json"}},
		{name: "nodesFile garbage", conf: cnitest.Conf{"nodes": nil, "nodesFile": "/etc/cni/garbage.json"}, code: invalid, says: []string{"nodesFile /etc/cni/garbage.json", "not JSON"}},
		{name: "nodesFile wrong", conf: cnitest.Conf{"nodes": nil, "nodesFile": "/etc/cni/wrong.json"}, code: invalid, says: []string{"nodesFile /etc/cni/wrong.json", "nodes[0]", "192.168.1.0/33"}},
		{name: "OVSDB elsewhere", conf: cnitest.Conf{"ovsdb": "unix:/run/nowhere/db.sock"}, code: tryAgain, says: []string{"/run/nowhere/db.sock"}},
		{name: "netns gone", env: []string{"CNI_NETNS=/var/run/netns/gone"}, code: badNetns, says: []string{"/var/run/netns/gone"}},
		{name: "netns is a file", env: []string{"CNI_NETNS=/run/file"}, code: badNetns, says: []string{"/run/file"}},
		{name: "netns is the host's own", env: []string{"CNI_NETNS=/proc/1/ns/net"}, code: badNetns, says: []string{"/proc/1/ns/net", "host's own"}},
		{name: "ifname taken", before: "ip -n c1 link add eth0 type veth peer name other", after: "ip -n c1 link delete eth0", code: foreign, says: []string{"CNI_IFNAME eth0", "already"}},
		{name: "adopted bridge absent", conf: cnitest.Conf{"adoptBridge": true}, code: tryAgain, says: []string{"adoptBridge", "no OVS bridge obr0"}},
		{name: "foreign OVS bridge", before: "ovs-vsctl add-br obr0 -- set bridge obr0 datapath_type=" + l.Datapath, after: "ovs-vsctl del-br obr0", code: foreign,
			says: []string{"OVS bridge obr0 is in the way", "not ours", "adoptBridge"}},
		{name: "Linux bridge of that name", before: "ip link add obr0 type bridge", after: "ip link delete obr0", code: foreign, says: []string{"obr0", "not ours"}},
		{name: "foreign link for the transit link", before: "ip link add obr0-t type bridge", after: "ip link delete obr0-t", code: foreign, says: []string{"obr0-t", "not ours"}},
		{name: "requested address out of range", conf: cnitest.Conf{"runtimeConfig": cnitest.Conf{"ips": []string{"10.1.1.1/24"}}}, code: invalid, says: []string{"10.1.1.1"}},
		{name: "requested address is the gateway's", conf: cnitest.Conf{"runtimeConfig": cnitest.Conf{"ips": []string{"192.168.1.1/24"}}}, says: []string{"192.168.1.1"}, code: invalid},
		{name: "requested MAC", conf: cnitest.Conf{"runtimeConfig": cnitest.Conf{"mac": "01:00:5e:00:00:01"}}, code: invalid, says: []string{"runtimeConfig.mac", "01:00:5e:00:00:01"}},
		{name: "MAC of CNI_ARGS", env: []string{"CNI_ARGS=IgnoreUnknown=1;MAC=zz"}, code: 4, says: []string{"CNI_ARGS", "zz"}},
		{name: "IPAM plugin missing", conf: cnitest.Conf{"ipam": cnitest.Conf{"type": "no-such-ipam"}}, code: tryAgain, says: []string{"no-such-ipam", "/opt/cni/bin"}},
		{name: "IPAM plugin without addresses", conf: cnitest.Conf{"ipam": cnitest.Conf{"type": "static"}}, code: invalid, says: []string{"static"}},
		{name: "IPAM gives an address of no subnet", conf: cnitest.Conf{"ipam": cnitest.Conf{"type": "static", "addresses": []cnitest.Conf{{"address": "10.1.1.1/24"}}}}, code: invalid,
			says: []string{"10.1.1.1", "none of this host's subnets"}},
	}
	if l.Datapath == testnet.DatapathNetdev {
		tests = append(tests, tests[0])
		last := &tests[len(tests)-1]
		last.name, last.conf, last.code = "no kernel datapath", cnitest.Conf{"datapathType": "system"}, refused
		last.says = []string{"OVS bridge obr0", "openvswitch kernel module", "datapathType netdev"}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != "" {
				h.Shell(t, tt.before)
			}
			host, container := snapshot(t, h), inside(t, c)
			_, err := call(c, "ovs-gre", "ADD", conf(tt.conf), tt.env...)
			wantError(t, err, tt.code, tt.says...)
			unchanged(t, h, host)
			if d := diff(container, inside(t, c)); d != "" {
				t.Errorf("the container is not as it was:\n%s", d)
			}
			if tt.after != "" {
				h.Shell(t, tt.after)
			}
		})
	}
	if t.Failed() {
		return
	}
	// Nothing of all this keeps a good ADD from working.
	result(t, c, "ovs-gre", conf(nil))
	if _, err := call(c, "ovs-gre", "DEL", conf(nil)); err != nil {
		t.Error(err)
	}
}

func inside(t *testing.T, c *testnet.Netns) string {
	t.Helper()
	return c.Shell(t, calm+"{ ip -o link; ip -o address; ip route; ip -6 route; } | calm")
}

// TestErrorsTaken asks for what another container has.
func TestErrorsTaken(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	n := cnitest.Network{Subnets: func(int) []string { return []string{"192.168.1.0/29"} }}
	conf := func(more cnitest.Conf) string { return cnitest.PluginConf(t, n.Conflist(l), "ovs-gre", more) }
	var cs []*testnet.Netns
	for i := range 6 {
		cs = append(cs, h.NewNetns(t, fmt.Sprintf("c%d", i+1)))
	}
	first := result(t, cs[0], "ovs-gre", conf(nil))
	ip := first.IPs[0].Address

	t.Run("address", func(t *testing.T) {
		before := snapshot(t, h)
		_, err := call(cs[1], "ovs-gre", "ADD", conf(cnitest.Conf{"runtimeConfig": cnitest.Conf{"ips": []string{ip.String()}}}))
		wantError(t, err, tryAgain, ip.IP.String())
		unchanged(t, h, before)
	})
	t.Run("attached twice", func(t *testing.T) {
		before := snapshot(t, h)
		_, err := call(cs[0], "ovs-gre", "ADD", conf(nil))
		wantError(t, err, foreign, "CNI_IFNAME eth0", "already")
		unchanged(t, h, before)
	})
	t.Run("all addresses", func(t *testing.T) {
		for _, c := range cs[1:5] {
			result(t, c, "ovs-gre", conf(nil))
		}
		before := snapshot(t, h)
		_, err := call(cs[5], "ovs-gre", "ADD", conf(nil))
		wantError(t, err, tryAgain, "no address is left", "192.168.1")
		unchanged(t, h, before)
	})
}

// TestErrorsForeignRoute has somebody's route to a peer's subnet in the way.
func TestErrorsForeignRoute(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	n := cnitest.Network{}
	n.Install(t, l)
	for _, tt := range []struct{ route, del, dst string }{
		{"ip route add 192.168.2.0/24 via 172.16.32.2", "ip route delete 192.168.2.0/24", "192.168.2.0/24"},
		{"ip -6 route add fd92:2::/64 via fd00:32::2", "ip -6 route delete fd92:2::/64", "fd92:2::/64"},
		{"ip route add blackhole 192.168.2.0/24", "ip route delete blackhole 192.168.2.0/24", "192.168.2.0/24"},
	} {
		t.Run(tt.route, func(t *testing.T) {
			h.Shell(t, tt.route)
			before := snapshot(t, h)
			c := h.NewNetns(t, "c1")
			res := result(t, c, "ovs-gre", cnitest.PluginConf(t, n.Conflist(l), "ovs-gre", nil))
			attached := snapshot(t, h)
			conf := cnitest.PluginConf(t, n.Conflist(l), routeSync, cnitest.Conf{"prevResult": res})
			_, err := call(c, routeSync, "ADD", conf)
			wantError(t, err, foreign, "route "+tt.dst+" is in the way", "not ours: there is ")
			unchanged(t, h, attached)
			for _, plugin := range []string{routeSync, "ovs-gre"} { // as the runtime does
				if _, err := call(c, plugin, "DEL", cnitest.PluginConf(t, n.Conflist(l), plugin, nil)); err != nil {
					t.Errorf("%s DEL: %v", plugin, err)
				}
			}
			unchanged(t, h, before)
			c.Delete(t)
			h.Shell(t, tt.del)
		})
	}
}

// TestErrorsTunnelRefused has a second network that would need the same
// tunnel as the first.
func TestErrorsTunnelRefused(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}}.Install(t, l)
	cs := one(t, l, "ovsnet")
	second := cnitest.Network{Name: "second", OVSGRE: cnitest.Conf{"bridge": "obr1", "ipMasq": true},
		Subnets: func(i int) []string { return []string{fmt.Sprintf("10.9.%d.0/24", i)} }}
	c := h.NewNetns(t, "other")
	before := snapshot(t, h)
	_, err := call(c, "ovs-gre", "ADD", cnitest.PluginConf(t, second.Conflist(l), "ovs-gre", nil))
	wantError(t, err, refused, "tunnel ", l.Hosts[1].Addr4.String(), "File exists", "tunnel.key")
	unchanged(t, h, before)
	reach(t, "container 1 to container 2", cs[0], cs[1].Addr(t, false))
	// As the message says:
	conf := cnitest.PluginConf(t, second.Conflist(l), "ovs-gre", cnitest.Conf{"tunnel": cnitest.Conf{"key": 2}})
	result(t, c, "ovs-gre", conf)
	// A change that OVS refuses is half made; who goes back to what was before
	// gets that, and not the half.
	d := h.NewNetns(t, "third")
	_, err = call(d, "ovs-gre", "ADD", cnitest.PluginConf(t, second.Conflist(l), "ovs-gre", nil))
	wantError(t, err, refused, "File exists")
	result(t, d, "ovs-gre", conf)
	if out := h.Shell(t, "ovs-vsctl --bare --columns=options find interface external_ids:ovs-gre.network=second external_ids:ovs-gre.role=tunnel"); !strings.Contains(out, "key=") {
		t.Errorf("the tunnel is still the one that was refused: %s", out)
	}
	for _, c := range []*testnet.Netns{c, d} {
		if _, err := call(c, "ovs-gre", "DEL", conf); err != nil {
			t.Error(err)
		}
	}
	unchanged(t, h, before)
}

// TestErrorsDaemons calls ADD while a daemon of OVS is dead or asleep.
func TestErrorsDaemons(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h, ctx := l.Hosts[0], context.Background()
	conf := cnitest.PluginConf(t, cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}}.Conflist(l), "ovs-gre", nil)
	c, resident := h.NewNetns(t, "c1"), h.NewNetns(t, "resident")
	for _, state := range []struct {
		name  string
		ready func(t *testing.T)
	}{
		{"bare host", func(*testing.T) {}},
		{"host with a container", func(t *testing.T) { result(t, resident, "ovs-gre", conf) }},
	} {
		t.Run(state.name, func(t *testing.T) {
			state.ready(t)
			for _, d := range []struct {
				name       string
				stop, back func(context.Context) error
				says       []string
			}{
				{"ovsdb-server stopped", h.StopOVSDB, h.StartOVSDB, []string{"/var/run/openvswitch/db.sock"}},
				{"ovs-vswitchd dead", h.KillVswitchd, h.StartVswitchd, []string{"ovs-vswitchd does not run"}},
				{"ovs-vswitchd paused", h.PauseVswitchd, h.ResumeVswitchd, []string{"ovs-vswitchd (pid ", "does not answer on its control socket"}},
			} {
				t.Run(d.name, func(t *testing.T) {
					must(t, d.stop(ctx))
					before := snapshot(t, h)
					start := time.Now()
					_, err := call(c, "ovs-gre", "ADD", conf)
					took := time.Since(start)
					wantError(t, err, tryAgain, d.says...)
					t.Logf("ADD took %v", took.Round(time.Millisecond))
					unchanged(t, h, before)
					must(t, d.back(ctx))
					res := result(t, c, "ovs-gre", conf)
					if len(res.IPs) != 2 {
						t.Errorf("want two addresses, got %v", res.IPs)
					}
					if _, err := call(c, "ovs-gre", "DEL", conf); err != nil {
						t.Errorf("DEL: %v", err)
					}
				})
			}
		})
	}
}

// TestErrorsNodesFileGoesBad has a network whose nodes file breaks while
// containers run.
func TestErrorsNodesFileGoesBad(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	n := cnitest.Network{}
	list, err := json.Marshal(n.NodeList(l))
	must(t, err)
	file := cnitest.Network{OVSGRE: cnitest.Conf{"nodes": nil, "nodesFile": "/etc/cni/nodes.json"}}
	for _, h := range l.Hosts {
		h.WriteFile(t, "/etc/cni/nodes.json", string(list))
	}
	file.Install(t, l)
	cs := one(t, l, "ovsnet")
	h := l.Hosts[0]
	before := snapshot(t, h)
	c := h.NewNetns(t, "more")
	conf := cnitest.PluginConf(t, file.Conflist(l), "ovs-gre", nil)
	for content, want := range map[string]uint{"{]": invalid, "": invalid, "[]": invalid, string(list[:len(list)/2]): invalid} {
		h.WriteFile(t, "/etc/cni/nodes.json", content)
		_, err := call(c, "ovs-gre", "ADD", conf)
		wantError(t, err, want, "node")
	}
	h.Shell(t, "rm /etc/cni/nodes.json")
	_, err = call(c, "ovs-gre", "ADD", conf)
	wantError(t, err, tryAgain, "/etc/cni/nodes.json")
	unchanged(t, h, before)
	reach(t, "container 1 to container 2", cs[0], cs[1].Addr(t, false))
	// Leaving needs no nodes.
	if err := cs[0].Call("del"); err != nil {
		t.Error(err)
	}
}
