package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/test/golden"
)

// compareAddrs lets cmp look at addresses and prefixes.
var compareAddrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

const (
	node1 = `{"name":"host1","address":"172.16.32.100","subnets":["192.168.1.0/24"]}`
	node2 = `{"name":"host2","address":"172.16.32.101","subnets":["192.168.2.0/24"]}`
	two   = "[" + node1 + "," + node2 + "]"
	inFan = `{"underlay":"172.16.0.0/16","containers":"10.0.0.0/8"}`
)

func ovsgre(keys string) []byte {
	return []byte(`{"cniVersion":"1.1.0","name":"ovsnet","type":"ovs-gre"` + keys + `}`)
}

func routesync(keys string) []byte {
	return []byte(`{"cniVersion":"1.1.0","name":"ovsnet","type":"route-sync"` + keys + `}`)
}

// class names the sentinel that an error wraps, and insists on there being
// exactly the right ones.
func class(t *testing.T, err error) string {
	t.Helper()
	invalid, unsupported, decode := errors.Is(err, config.ErrInvalid), errors.Is(err, config.ErrUnsupported), errors.Is(err, config.ErrDecode)
	switch {
	case unsupported && invalid && !decode:
		return "unsupported"
	case invalid && !decode:
		return "invalid"
	case decode && !invalid && !unsupported:
		return "decode"
	}
	t.Errorf("%q wraps the wrong sentinels", err)
	return "?"
}

// each lists the errors that errors.Join joined.
func each(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

func show(t *testing.T, b *strings.Builder, what string, err error) {
	t.Helper()
	fmt.Fprintf(b, "%s\n", what)
	if err == nil {
		t.Errorf("%s passes", what)
		return
	}
	for _, e := range each(err) {
		if strings.ContainsFunc(e.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: not printable: %q", what, e)
		}
		fmt.Fprintf(b, "    %s: %s\n", class(t, e), e)
	}
}

func TestExample(t *testing.T) {
	stdin := ovsgre(`,"ipMasq":true,"nodes":` + two + `,"ipam":{"type":"host-local"},"capabilities":{"ips":true,"mac":true}`)
	got, err := config.Parse(stdin)
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Network{
		Base: config.Base{CNIVersion: "1.1.0", Name: "ovsnet", Type: "ovs-gre", Raw: stdin, Nodes: []config.Node{
			{Name: "host1", Address: netip.MustParseAddr("172.16.32.100"), Subnets: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}},
			{Name: "host2", Address: netip.MustParseAddr("172.16.32.101"), Subnets: []netip.Prefix{netip.MustParsePrefix("192.168.2.0/24")}},
		}},
		Bridge: "obr0", Segment: config.SegmentHost, Tunnel: config.Tunnel{Type: "gre", Ports: "peer"}, IPMasq: true,
		IsDefaultGateway: true, OVSDB: "/var/run/openvswitch/db.sock", Timeout: 10 * time.Second, IPAM: config.IPAM{Type: "host-local"},
	}
	if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	r, err := config.ParseRoutes(routesync(""))
	if err != nil {
		t.Fatal(err)
	}
	wantRoutes := &config.Routes{Base: config.Base{CNIVersion: "1.1.0", Name: "ovsnet", Type: "route-sync", Raw: routesync("")}, Mode: config.ModeTunnel, Table: 254}
	if diff := cmp.Diff(wantRoutes, r, compareAddrs); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestGood gives every key every kind of value that is good for it.
func TestGood(t *testing.T) {
	key := func(n uint32) *uint32 { return &n }
	prefixes := func(s ...string) []netip.Prefix {
		var ps []netip.Prefix
		for _, s := range s {
			ps = append(ps, netip.MustParsePrefix(s))
		}
		return ps
	}
	nodes, err := config.DecodeNodes("nodes", []byte(two))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, tc := range []struct {
		key, value string
		more       string
		get        func(c *config.Network) any
		want       any
	}{
		{"nodes", two, "", func(c *config.Network) any { return c.Nodes }, nodes},
		{"nodesFile", `"/etc/nodes.json"`, "", func(c *config.Network) any { return c.NodesFile }, "/etc/nodes.json"},
		{"nodesFile", `"/etc/../run//nodes.json"`, "", func(c *config.Network) any { return c.NodesFile }, "/run/nodes.json"},
		{"node", `"host1"`, "", func(c *config.Network) any { return c.Node }, "host1"},
		{"node", `""`, "", func(c *config.Network) any { return c.Node }, ""},
		{"bridge", `"br-ex.1_x+y"`, "", func(c *config.Network) any { return c.Bridge }, "br-ex.1_x+y"},
		{"bridge", `"thirteenchars"`, "", func(c *config.Network) any { return c.Bridge }, "thirteenchars"},
		{"adoptBridge", `true`, "", func(c *config.Network) any { return c.AdoptBridge }, true},
		{"adoptBridge", `false`, "", func(c *config.Network) any { return c.AdoptBridge }, false},
		{"segment", `"host"`, "", func(c *config.Network) any { return c.Segment }, config.SegmentHost},
		{"segment", `"mesh"`, "", func(c *config.Network) any { return c.Segment }, config.SegmentMesh},
		{"segment", `"container"`, "", func(c *config.Network) any { return c.Segment }, config.SegmentContainer},
		{"tunnel", `{}`, "", func(c *config.Network) any { return c.Tunnel }, config.Tunnel{Type: "gre", Ports: "peer"}},
		{"tunnel", `{"type":"none"}`, "", func(c *config.Network) any { return c.Tunnel }, config.Tunnel{Type: "none", Ports: "peer"}},
		{"tunnel", `{"key":4294967295,"bfd":true}`, "", func(c *config.Network) any { return c.Tunnel }, config.Tunnel{Type: "gre", Ports: "peer", Key: key(4294967295), BFD: true}},
		{"tunnel", `{"type":"vxlan","csum":true}`, "", func(c *config.Network) any { return c.Tunnel }, config.Tunnel{Type: "vxlan", Ports: "peer", Csum: true}},
		{"tunnel", `{"ports":"one"}`, "", func(c *config.Network) any { return c.Tunnel }, config.Tunnel{Type: "gre", Ports: "one"}},
		{"tunnel", `{"key":0}`, "", func(c *config.Network) any { return c.Tunnel }, config.Tunnel{Type: "gre", Ports: "peer", Key: key(0)}},
		{"tunnel", `{"type":"vxlan","key":16777215,"port":65535}`, "", func(c *config.Network) any { return c.Tunnel }, config.Tunnel{Type: "vxlan", Ports: "peer", Key: key(16777215), Port: 65535}},
		{"tunnel", `{"options":{}}`, "", func(c *config.Network) any { return c.Tunnel }, config.Tunnel{Type: "gre", Ports: "peer"}},
		{"tunnel", `{"options":{"ttl":64,"tos":"inherit","df_default":false,"psk":{"file":"/a//b c"}}}`, "", func(c *config.Network) any { return c.Tunnel.Options }, []config.Option{
			{Name: "df_default", Value: "false"}, {Name: "psk", File: "/a/b c"}, {Name: "tos", Value: "inherit"}, {Name: "ttl", Value: "64"}}},
		{"tunnel", `{"ports":"one","options":{"ttl":"1"}}`, "", func(c *config.Network) any { return c.Tunnel.Options }, []config.Option{{Name: "ttl", Value: "1"}}},
		{"tunnel", `{"type":"vxlan","port":4789,"options":{"remote_cert":"/x.pem"}}`, "", func(c *config.Network) any { return c.Tunnel.IPsec() }, "remote_cert"},
		{"tunnel", `{"type":"geneve","port":1}`, "", func(c *config.Network) any { return c.Tunnel }, config.Tunnel{Type: "geneve", Ports: "peer", Port: 1}},
		{"mtu", `0`, "", func(c *config.Network) any { return c.MTU }, 0},
		{"mtu", `576`, "", func(c *config.Network) any { return c.MTU }, 576},
		{"mtu", `65535`, "", func(c *config.Network) any { return c.MTU }, 65535},
		{"ipMasq", `true`, "", func(c *config.Network) any { return c.IPMasq }, true},
		{"noMasqueradeCIDRs", `["fd00::/8","10.0.0.0/8","0.0.0.0/0"]`, "", func(c *config.Network) any { return c.NoMasqueradeCIDRs }, prefixes("0.0.0.0/0", "10.0.0.0/8", "fd00::/8")},
		{"noMasqueradeCIDRs", `[]`, "", func(c *config.Network) any { return c.NoMasqueradeCIDRs }, prefixes()},
		{"isDefaultGateway", `false`, "", func(c *config.Network) any { return c.IsDefaultGateway }, false},
		{"spoofchk", `true`, "", func(c *config.Network) any { return [2]bool{c.ChecksSpoof(""), c.ChecksSpoof("netdev")} }, [2]bool{true, true}},
		{"spoofchk", `false`, "", func(c *config.Network) any { c.Segment = config.SegmentContainer; return c.ChecksSpoof("") }, false},
		{"segment", `"container"`, "", func(c *config.Network) any { return [2]bool{c.ChecksSpoof(""), c.ChecksSpoof("netdev")} }, [2]bool{true, false}},
		{"linuxBridge", `"docker0"`, "", func(c *config.Network) any { return c.LinuxBridge }, "docker0"},
		{"linuxBridge", `"br-0123456789ab"`, "", func(c *config.Network) any { return c.LinuxBridge }, "br-0123456789ab"},
		{"ovsdb", `"unix:/run/db.sock"`, "", func(c *config.Network) any { return c.OVSDB }, "/run/db.sock"},
		{"ovsdb", `"/run/db.sock"`, "", func(c *config.Network) any { return c.OVSDB }, "/run/db.sock"},
		{"datapathType", `"system"`, "", func(c *config.Network) any { return c.DatapathType }, "system"},
		{"datapathType", `"netdev"`, "", func(c *config.Network) any { return c.DatapathType }, "netdev"},
		{"timeoutSeconds", `1`, "", func(c *config.Network) any { return c.Timeout }, time.Second},
		{"timeoutSeconds", `600`, "", func(c *config.Network) any { return c.Timeout }, 10 * time.Minute},
		{"ipam", `{}`, "", func(c *config.Network) any { return c.IPAM }, config.IPAM{}},
		{"ipam", `{"type":"host-local","dataDir":"/x","routes":[{"dst":"0.0.0.0/0"}]}`, "", func(c *config.Network) any { return c.IPAM }, config.IPAM{Type: "host-local", DataDir: "/x"}},
		{"ipam", `{"type":"host-local","subnet":"10.0.0.0/8"}`, "", func(c *config.Network) any { return c.IPAM }, config.IPAM{Type: "host-local", Ranged: true}},
		{"dns", `{}`, "", func(c *config.Network) any { return c.DNS }, types.DNS{}},
		{"dns", `null`, "", func(c *config.Network) any { return c.DNS }, types.DNS{}},
		{"dns", `{"nameservers":["192.0.2.53"],"domain":"a.example","search":["b.example"],"options":["ndots:2"]}`, "", func(c *config.Network) any { return c.DNS },
			types.DNS{Nameservers: []string{"192.0.2.53"}, Domain: "a.example", Search: []string{"b.example"}, Options: []string{"ndots:2"}}},
		{"ipam", `{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/8"}]]}`, "", func(c *config.Network) any { return c.IPAM }, config.IPAM{Type: "host-local", Ranged: true}},
	} {
		stdin := `,"` + tc.key + `":` + tc.value
		if !strings.HasPrefix(tc.key, "nodes") {
			stdin += `,"nodes":` + two
		}
		c, err := config.Parse(ovsgre(stdin))
		if err != nil {
			t.Errorf("%s %s: %v", tc.key, tc.value, err)
		}
		if diff := cmp.Diff(tc.want, tc.get(c), compareAddrs); diff != "" {
			t.Errorf("%s %s, -want +got:\n%s", tc.key, tc.value, diff)
		}
		seen[tc.key] = true
	}
	for _, k := range config.NetworkKeys {
		if name, _, _ := strings.Cut(k.Name, "."); !seen[name] {
			t.Errorf("nobody tried key %s", k.Name)
		}
	}

	seen = map[string]bool{"nodes": true, "nodesFile": true, "node": true}
	for _, tc := range []struct {
		key, value string
		get        func(c *config.Routes) any
		want       any
	}{
		{"mode", `"tunnel"`, func(c *config.Routes) any { return c.Mode }, config.ModeTunnel},
		{"mode", `"direct"`, func(c *config.Routes) any { return c.Mode }, config.ModeDirect},
		{"mode", `"auto"`, func(c *config.Routes) any { return c.Mode }, config.ModeAuto},
		{"bridge", `"obr7"`, func(c *config.Routes) any { return c.Bridge }, "obr7"},
		{"table", `"main"`, func(c *config.Routes) any { return c.Table }, 254},
		{"table", `"default"`, func(c *config.Routes) any { return c.Table }, 253},
		{"table", `"local"`, func(c *config.Routes) any { return c.Table }, 255},
		{"table", `1`, func(c *config.Routes) any { return c.Table }, 1},
		{"table", `2147483647`, func(c *config.Routes) any { return c.Table }, 2147483647},
		{"metric", `0`, func(c *config.Routes) any { return c.Metric }, 0},
		{"metric", `100`, func(c *config.Routes) any { return c.Metric }, 100},
		{"nodes", two, func(c *config.Routes) any { return c.Nodes }, nodes},
		{"nodesFile", `"/x"`, func(c *config.Routes) any { return c.NodesFile }, "/x"},
		{"node", `"host2"`, func(c *config.Routes) any { return c.Node }, "host2"},
		{"ipam", `{"type":"host-local"}`, func(c *config.Routes) any { return c.Name }, "ovsnet"},
	} {
		c, err := config.ParseRoutes(routesync(`,"` + tc.key + `":` + tc.value))
		if err != nil {
			t.Errorf("%s %s: %v", tc.key, tc.value, err)
		}
		if diff := cmp.Diff(tc.want, tc.get(c), compareAddrs); diff != "" {
			t.Errorf("%s %s, -want +got:\n%s", tc.key, tc.value, diff)
		}
		seen[tc.key] = true
	}
	for _, k := range config.RoutesKeys {
		if !seen[k.Name] {
			t.Errorf("nobody tried key %s", k.Name)
		}
	}
}

// TestKeys: the tables hold what the reference and the schema need.
func TestKeys(t *testing.T) {
	for _, keys := range [][]config.Key{config.NetworkKeys, config.RoutesKeys} {
		seen := map[string]bool{}
		for _, k := range keys {
			if seen[k.Name] || k.Name == "" || k.Type == "" || k.Doc == "" || strings.HasSuffix(k.Doc, ".") {
				t.Errorf("%+v", k.Name)
			}
			seen[k.Name] = true
			for _, v := range k.Enum {
				if parse := `,"` + k.Name + `":` + fmt.Sprintf("%q", v); !strings.Contains(k.Name, ".") {
					if _, err := config.Parse(ovsgre(parse + `,"nodes":` + two)); k.Name != "mode" && err != nil {
						t.Error(err)
					}
				}
			}
		}
	}
}

// TestRuntimeKeys: what the runtime, libcni and nerdctl put in, passes.
func TestRuntimeKeys(t *testing.T) {
	const keys = `,"cniVersions":["1.0.0"],"runtimeConfig":{"ips":["10.0.0.1/24"],"x":1},"args":{"cni":{"ips":["10.0.0.1"]},"other":[]},
		"prevResult":{"cniVersion":"1.0.0"},"dns":{},"disableCheck":true,"disableGC":false,"loadOnlyInlinedPlugins":true,
		"cni.dev/anything":{"a":1},"nerdctlID":"x","nerdctlLabels":{}`
	c, err := config.Parse(ovsgre(keys + `,"capabilities":{"ips":true,"mac":true,"ipRanges":true},"ipam":{"type":"x"},"nodes":` + two))
	if err != nil {
		t.Error(err)
	}
	if string(c.PrevResult) != `{"cniVersion":"1.0.0"}` {
		t.Errorf("prevResult: %s", c.PrevResult)
	}
	r, err := config.ParseRoutes(routesync(keys + `,"capabilities":{},"ipam":{}`))
	if err != nil {
		t.Error(err)
	}
	if string(r.PrevResult) != `{"cniVersion":"1.0.0"}` {
		t.Errorf("prevResult: %s", r.PrevResult)
	}
	for _, prev := range []string{"", `,"prevResult":null`} {
		if c, err := config.Parse(ovsgre(prev + `,"nodes":` + two)); err != nil || c.PrevResult != nil {
			t.Errorf("%q: %q, %v", prev, c.PrevResult, err)
		}
	}
}

// TestMessages shows every message there is.
func TestMessages(t *testing.T) {
	var b strings.Builder
	for _, stdin := range []string{``, ` `, `null`, `[]`, `"x"`, `1`, `{`, `{"name":"x",}`, "{\"a\x1b\":1", `{} {}`, "\xff", `{"name":"ovsnet"`, `["` + strings.Repeat("x", 100) + `"]`} {
		c, err := config.Parse([]byte(stdin))
		show(t, &b, fmt.Sprintf("%q", stdin), err)
		if c == nil || c.Bridge != "obr0" {
			t.Errorf("%q: no configuration", stdin)
		}
		if _, err := config.ParseRoutes([]byte(stdin)); !errors.Is(err, config.ErrDecode) {
			t.Errorf("%q: %v", stdin, err)
		}
	}
	for _, name := range []string{``, `"name":5`, `"name":null`, `"name":""`, `"name":".."`, `"name":"../etc"`, `"name":"a/b"`, `"name":"a b"`, `"name":"a\n"`, `"name":"-x"`, `"name":"` + strings.Repeat("x", 201) + `"`} {
		_, err := config.Parse([]byte("{" + strings.TrimPrefix(name+`,"nodes":`+two, ",") + "}"))
		show(t, &b, name, err)
	}
	for _, keys := range []string{
		// One key: type, range, null.
		`"bridge":1`, `"bridge":null`, `"bridge":""`, `"bridge":"fourteen-chars"`, `"bridge":"a b"`, `"bridge":"a/b"`, `"bridge":".."`, `"bridge":"a\u0000"`,
		`"bridge":"-x"`, `"bridge":"a=b"`, `"bridge":"@a"`, `"bridge":"all"`, `"bridge":"default"`, `"bridge":"bü"`, `"bridge":"$(x)"`, `"bridge":"a;b"`,
		`"adoptBridge":1`, `"adoptBridge":"true"`, `"adoptBridge":null`,
		`"segment":1`, `"segment":"rack"`, `"segment":""`, `"segment":"Host"`,
		`"tunnel":1`, `"tunnel":null`, `"tunnel":[]`, `"tunnel":{"typ":"gre"}`, `"tunnel":{"type":"stt"}`, `"tunnel":{"type":7}`, `"tunnel":{"vni":7}`, `"tunnel":{"tunnel":{}}`,
		`"tunnel":{"key":-1}`, `"tunnel":{"key":4294967296}`, `"tunnel":{"key":"7"}`, `"tunnel":{"key":1.5}`, `"tunnel":{"key":null}`,
		`"tunnel":{"csum":"yes"}`, `"tunnel":{"bfd":0}`, `"tunnel":{"type":"vxlan","port":0}`, `"tunnel":{"ports":1}`, `"tunnel":{"ports":"two"}`, `"tunnel":{"type":"vxlan","port":65536}`, `"tunnel":{"type":"vxlan","port":"1"}`,
		`"tunnel.type":"gre"`, `"tunnel":{"tunnel.type":"gre"}`, `"tunnel":{"":1}`,
		`"tunnel":{"options":1}`, `"tunnel":{"options":null}`, `"tunnel":{"options":["xyzzy"]}`, `"tunnel":{"options":{"":1,"a b":1,"a-b":1}}`,
		`"tunnel":{"options":{"remote_ip":"xyzzy","local_ip":"xyzzy","key":7,"in_key":7,"out_key":"flow","dst_port":1,"csum":true,"packet_type":"legacy_l3","seq":true}}`,
		`"tunnel":{"options":{"a":null,"b":[],"c":"","d":"xyz\u0000zy","e":{},"f":{"file":1},"g":{"file":"xyzzy"},"h":{"file":"/a","xyzzy":1},"i":{"file":"/\u0000"}}}`,
		`"tunnel":{"options":{"psk":"xyzzy"}}`, `"tunnel":{"options":{"psk":["xyzzy"]}}`, `"tunnel":{"options":{"psk":7}}`, `"tunnel":{"options":{"psk":{"file":"/x"},"psk":"xyzzy"}}`, `"tunnel":{"options":{"PSK":"xyzzy","psk":"xyzzy"}}`,
		`"mtu":-1`, `"mtu":1`, `"mtu":575`, `"mtu":65536`, `"mtu":"1500"`, `"mtu":1e3`,
		`"ipMasq":"yes"`, `"isDefaultGateway":0`,
		`"noMasqueradeCIDRs":"10.0.0.0/8"`, `"noMasqueradeCIDRs":null`, `"noMasqueradeCIDRs":["10.0.0.1/8","x","::ffff:10.0.0.0/104",""]`, `"noMasqueradeCIDRs":[1]`,
		`"linuxBridge":""`, `"linuxBridge":"sixteencharacter"`, `"linuxBridge":{}`,
		`"ovsdb":""`, `"ovsdb":"tcp:127.0.0.1:6640"`, `"ovsdb":"unix:db.sock"`, `"ovsdb":1`, `"ovsdb":"unix:/a\u0000b"`, `"ovsdb":"unix:/` + strings.Repeat("x", 107) + `"`,
		`"datapathType":"dpdk"`, `"datapathType":""`, `"datapathType":1`,
		`"timeoutSeconds":0`, `"timeoutSeconds":601`, `"timeoutSeconds":"10"`,
		`"ipam":null`, `"ipam":[]`, `"ipam":"host-local"`, `"ipam":{"subnet":"10.0.0.0/8"}`, `"ipam":{"type":""}`, `"ipam":{"type":1}`, `"ipam":{"type":"../x"}`,
		`"node":1`, `"node":null`, `"nodesFile":"/x"`,
		// Typos.
		`"Bridge":"x"`, `"brigde":"x"`, `"segmnet":"mesh"`, `"ipmasq":true`, `"mut":1400`, `"nodes_file":"/x"`, `"node_s":[]`, `"isGateway":true`, `"isDefaultGatwayy":true`, `"mac":"x"`, `"mode":"direct"`, `"hairpinMode":true`, `"x\ny":1`, `"":1`,
		`"` + strings.Repeat("k", 1000) + `":1`,
		// Between keys.
		`"spoofchk":1`, `"spoofchk":true,"datapathType":"netdev"`,
		`"tunnel":{"csum":true}`, `"tunnel":{"csum":true},"datapathType":"system"`, `"tunnel":{"port":4789}`, `"tunnel":{"type":"none","port":4789}`, `"tunnel":{"type":"vxlan","key":16777216}`, `"tunnel":{"type":"geneve","key":4294967295}`,
		`"tunnel":{"type":"none","key":0}`, `"tunnel":{"type":"none","csum":true}`, `"tunnel":{"type":"none","bfd":true}`, `"tunnel":{"type":"none"},"segment":"mesh"`,
		`"tunnel":{"ports":"one"},"segment":"mesh"`, `"tunnel":{"ports":"one","bfd":true}`, `"tunnel":{"ports":"one","type":"none"}`,
		`"linuxBridge":"obr0"`, `"linuxBridge":"obr0-t"`, `"linuxBridge":"docker0","bridge":"docker0"`, `"linuxBridge":"docker0","adoptBridge":true`, `"linuxBridge":"docker0","segment":"container"`,
		`"tunnel":{"type":"wireguard"},"segment":"mesh"`, `"tunnel":{"type":"wireguard","key":7}`, `"tunnel":{"type":"wireguard","csum":true,"bfd":true}`, `"tunnel":{"keepalive":25}`, `"tunnel":{"type":"wireguard","keepalive":65536}`, `"tunnel":{"type":"wireguard"},"linuxBridge":"obr0-w"`,
		`"tunnel":{"type":"wireguard","options":{"ttl":1}}`, `"tunnel":{"type":"none","options":{"ttl":1}}`, `"tunnel":{"type":"stt","options":{"psk":{"file":"/x"}}}`,
		`"tunnel":{"ports":"one","options":{"psk":{"file":"/x"}}}`, `"datapathType":"netdev","tunnel":{"options":{"remote_name":"x"}}`, `"tunnel":{"options":{"psk":{"file":"/x"},"remote_cert":"/x.pem"}}`,
		`"tunnel":{"type":"vxlan","port":8472,"options":{"remote_cert":"/x.pem"}}`, `"tunnel":{"type":"geneve","port":1,"options":{"psk":{"file":"/x"}}}`,
		// A key that is wrong is not also wrong together with others.
		`"tunnel":{"type":"stt","port":1,"key":4294967295}`, `"bridge":"","linuxBridge":"obr0"`,
		// From the runtime.
		`"runtimeConfig":{"mac":"x"}`, `"args":{"cni":{"mac":"01:00:00:00:00:01"}}`, `"runtimeConfig":{"mac":"00:00:00:00:00:00"}`, `"runtimeConfig":{"mac":"02:00:00:00:00:00:00:01"}`,
		`"cni.dev/valid-attachments":{}`, `"cni.dev/valid-attachments":[{}]`, `"cni.dev/valid-attachments":[{"containerID":"x","ifname":"eth0"},null]`, `"cni.dev/valid-attachments":[{"containerID":1}]`, `"cni.dev/attachments":"x"`,
		// A value of many lines.
		"\"mtu\":{\n\t\"a\" : [\n1,\n2]}",
		// All at once.
		`"bridge":"a b","segment":"rack","tunnel":{"type":"stt","kye":1},"mtu":1,"nods":[],"node":"x","linuxBridge":"docker0","adoptBridge":true,"ovsdb":"x","timeoutSeconds":0,"cni.dev/attachments":1,"runtimeConfig":{"mac":"x"},"ipam":{"type":""}`,
	} {
		_, err := config.Parse(ovsgre("," + keys + `,"nodes":` + two))
		show(t, &b, keys, err)
	}
	golden.Compare(t, "testdata/messages.golden", b.String())

	b.Reset()
	for _, keys := range []string{
		`,"nodesFile":"x"`, `,"nodesFile":""`, `,"nodesFile":1`, `,"nodesFile":"/a\nb"`, ``, `,"nodes":[]`, `,"nodes":null`, `,"nodes":{}`, `,"nodesFile":"/x","nodes":` + two,
		`,"nodes":{"underlay":"172.16.0.0/16","containers":"10.0.0.0/8"},"nodesFile":"/x"`,
		`,"nodes":{"underlay":"172.16.0.0/16","container":"10.0.0.0/8"}`, `,"nodes":{"Underlay":"172.16.0.0/16","containers":"10.0.0.0/8"}`,
		`,"nodes":{"underlay":1,"containers":["10.0.0.0/8"]}`, `,"nodes":{"underlay":"172.16.0.1/16","containers":"10.0.0.0"}`,
		`,"nodes":{"underlay":"fd00::/64","containers":"::ffff:10.0.0.0/104"}`, `,"nodes":{"underlay":"0.0.0.0/0","containers":"127.0.0.0/9"}`,
		`,"nodes":{"underlay":"169.254.0.0/16","containers":"10.0.0.0/8"}`, `,"nodes":{"underlay":"10.1.0.0/16","containers":"10.0.0.0/8"}`,
		`,"nodes":{"underlay":"172.16.32.1/32","containers":"10.0.0.0/8"}`, `,"nodes":{"underlay":"172.16.0.0/16","containers":"10.0.0.0/15"}`,
		`,"nodes":{"underlay":"172.16.0.0/12","containers":"192.168.0.0/16"}`,
		`,"nodes":` + inFan + `,"node":"host1"`, `,"nodes":` + inFan + `,"node":"172.17.0.1"`, `,"nodes":` + inFan + `,"segment":"mesh"`,
		`,"nodes":` + inFan + `,"tunnel":{"type":"wireguard"}`, `,"nodes":` + inFan + `,"tunnel":{"type":"none"}`,
		`,"nodes":` + inFan + `,"tunnel":{"ports":"peer","bfd":true}`, `,"nodes":` + inFan + `,"tunnel":{"options":{"psk":{"file":"/x"}}}`,
	} {
		_, err := config.Parse(ovsgre(keys))
		show(t, &b, "ovs-gre"+keys, err)
	}
	for _, keys := range []string{
		`"mode":"bgp"`, `"mode":1`, `"bridge":"a b"`, `"table":0`, `"table":-1`, `"table":2147483648`, `"table":"mian"`, `"table":null`, `"metric":-1`, `"metric":"1"`,
		`"segment":"mesh"`, `"ipMasq":true`, `"tabel":1`, `"nodes":[]`, `"nodesFile":"x"`,
		`"mode":"direct","nodes":[` + node1 + `,{"name":"host2","address":"172.16.32.101","subnets":["192.168.2.0/24","fd00:2::/64"]}]`,
		`"mode":"bgp","table":0,"metric":-1,"bridge":"","x":1,"nodes":[{}]`,
		`"mode":"direct","nodes":` + inFan, `"mode":"auto","node":"x","nodes":` + inFan,
	} {
		_, err := config.ParseRoutes(routesync("," + keys))
		show(t, &b, "route-sync "+keys, err)
	}
	golden.Compare(t, "testdata/messages-routes.golden", b.String())

	b.Reset()
	for _, nodes := range []string{
		``, `null`, `{}`, `"x"`, `1`, `[`, `[1]`, `["host1"]`, `[null]`, `[[]]`, `[{"name":"a","name":"b","address":"10.0.0.1","subnets":"","subnets":["10.1.0.0/24"]}]`, two + `]`, two + two, two + ` x`, two + "\x00",
		`[{}]`, `[{"name":"a"}]`, `[{"name":"a","address":"10.0.0.1","subnets":[]}]`, `[{"name":"a","address":"10.0.0.1","subnets":null}]`,
		`[{"name":1,"address":true,"subnets":"10.0.0.0/24"}]`, `[{"name":null,"address":null,"subnets":[1]}]`,
		`[{"name":"a","adddress":"10.0.0.1","subnet":"10.0.0.0/24","zone":"b"}]`,
		`[{"name":"","address":"10.0.0.1","subnets":["10.1.0.0/24"]}]`,
		`[{"name":"a\nb","address":"10.0.0.1","subnets":["10.1.0.0/24"]}]`,
		`[{"name":"` + strings.Repeat("é", 127) + `","address":"10.0.0.1","subnets":["10.1.0.0/24"]}]`,
		address(`x`), address(``), address(`10.0.0.1/24`), address(`10.0.0.01`), address(`fe80::1`), address(`fe80::1%eth0`), address(`fd00::1%eth0`), address(`::ffff:10.0.0.1`),
		address(`0.0.0.0`), address(`::`), address(`127.0.0.1`), address(`::1`), address(`224.0.0.1`), address(`ff02::1`), address(`169.254.0.1`), address(`x\u001b[31m`),
		subnet(`x`), subnet(``), subnet(`10.1.0.0`), subnet(`10.1.0.1/24`), subnet(`fd00::1/64`), subnet(`10.1.0.0/33`), subnet(`10.1.0.0/31`), subnet(`10.1.0.0/32`), subnet(`fd00::/127`), subnet(`fd00::/128`),
		subnet(`::ffff:10.0.0.0/120`), subnet(`0.0.0.0/0`), subnet(`::/0`), subnet(`0.0.0.0/8`), subnet(`127.0.0.0/8`), subnet(`224.0.0.0/24`), subnet(`fe80::/64`), subnet(`ff00::/64`), subnet(`fd00::%eth0/64`), subnet(`10.1.0.0/024`),
		// Between nodes.
		"[" + node1 + "," + node1 + "]",
		nodes("a 10.0.0.1 10.1.0.0/24", "a 10.0.0.2 10.2.0.0/24"),
		nodes("a 10.0.0.1 10.1.0.0/24", "b 10.0.0.1 10.2.0.0/24", "c 10.0.0.1 10.3.0.0/24"),
		nodes("a 10.0.0.1 10.1.0.0/24", "b 10.0.0.2 10.1.0.0/24"),
		nodes("a 10.0.0.1 10.1.0.0/16", "b 10.0.0.2 10.1.2.0/24", "c 10.0.0.3 10.1.200.0/24", "d 10.0.0.4 10.2.0.0/24"),
		nodes("a 10.0.0.1 10.1.2.0/24 10.1.0.0/16"),
		nodes("a 10.0.0.1 fd00::/48 10.1.0.0/24", "b 10.0.0.2 10.2.0.0/24 fd00:0:0:1::/64"),
		nodes("a 10.0.0.1 10.1.0.0/24", "b 10.0.1.9 10.0.0.0/24"),
		nodes("a fd00::1 fd01::/64", "b fd00::2 fd00::/48"),
		nodes("a 10.1.0.1 10.1.0.0/24"),
		nodes("a 10.1.0.0 10.1.0.0/24"),
		nodes("a 10.1.0.1 10.1.0.0/24 10.1.0.128/25", "b 10.1.0.200 10.0.0.0/24"),
		nodes("a 10.0.0.1 10.1.0.0/24", "b fd00::2 10.2.0.0/24", "c fd00::3 10.3.0.0/24"),
		// Each node's own problems hide those between nodes, other keys' do not.
		`[{"name":"a","address":"x","subnets":["y","10.0.0.1/8"]},` + node1 + `,` + node1 + `]`,
	} {
		got, err := config.DecodeNodes("nodes", []byte(nodes))
		show(t, &b, fmt.Sprintf("%q", nodes), err)
		for _, n := range got {
			if !n.Address.IsValid() || n.Name == "" || len(n.Subnets) == 0 {
				t.Errorf("%s: half a node: %v", nodes, n)
			}
		}
	}
	_, err := config.Parse(ovsgre(`,"bridge":"a b","nodes":[` + node1 + `,` + node1 + `],"mtu":1,"linuxBridge":"docker0","adoptBridge":true`))
	show(t, &b, "all kinds of problems", err)
	golden.Compare(t, "testdata/messages-nodes.golden", b.String())
}

func address(a string) string {
	return `[{"name":"a","address":"` + a + `","subnets":["10.1.0.0/24"]}]`
}

func subnet(s string) string {
	return `[{"name":"a","address":"172.16.0.1","subnets":["` + s + `"]}]`
}

// nodes makes a list of lines "name address subnet…".
func nodes(lines ...string) string {
	var list []string
	for _, l := range lines {
		f := strings.Fields(l)
		subnets, _ := json.Marshal(f[2:])
		list = append(list, fmt.Sprintf(`{"name":%q,"address":%q,"subnets":%s}`, f[0], f[1], subnets))
	}
	return "[" + strings.Join(list, ",") + "]"
}

// TestSound: what is only nearly a conflict passes.
func TestSound(t *testing.T) {
	for _, list := range []string{
		`[]`,
		" \n" + two + "\n\t ",
		nodes("a 10.0.0.1 10.1.0.0/24", "b 10.0.0.2 10.1.1.0/24", "c 10.0.0.3 10.1.2.0/30"),
		nodes("a 10.0.0.1 10.1.0.0/24 fd00::/64", "b 10.0.0.2 10.2.0.0/24 fd00:0:0:1::/64"),
		// The same bits in the two families are not the same addresses.
		nodes("a 10.0.0.1 16.0.0.0/8", "b 10.0.0.2 1000::/8"),
		nodes("a fd00::1 fd01::/64", "b fd00::2 10.0.0.0/8"),
		nodes("a 10.0.0.255 10.0.1.0/24", "b 10.0.2.0 10.3.0.0/24"),
		nodes("a 10.0.0.1 169.254.0.0/16", "b 240.0.0.1 10.0.1.0/24", "c 10.0.0.2 240.1.0.0/16"),
		`[{"name":"host 1 (\"ü\"); $(x)","address":"10.0.0.1","subnets":["10.1.0.0/24"]}]`,
		`[{"name":"` + strings.Repeat("x", 253) + `","address":"10.0.0.1","subnets":["10.1.0.0/24"]}]`,
	} {
		got, err := config.DecodeNodes("nodes", []byte(list))
		if err != nil {
			t.Errorf("%s: %v", list, err)
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		back, err := config.DecodeNodes("nodes", again)
		if diff := cmp.Diff(got, back, compareAddrs); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", again, err, diff)
		}
	}
}

// TestMACCollision: over IPv6 a MAC address is made of a hash, and two may be equal.
func TestMACCollision(t *testing.T) {
	seen := map[string]netip.Addr{}
	for i := range 1 << 20 {
		a := netip.AddrFrom16([16]byte{0: 0xfd, 12: byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
		b, dup := seen[config.MAC(a)]
		if !dup {
			seen[config.MAC(a)] = a
			continue
		}
		_, err := config.DecodeNodes("nodes", []byte(nodes("a "+b.String()+" 10.1.0.0/24", "b "+a.String()+" 10.2.0.0/24")))
		want := fmt.Sprintf(`nodes[1].address "%s": makes the same MAC address %s as %s of a: give one of the two another address`, a, config.MAC(a), b)
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		return
	}
	t.Fatal("a million addresses without a collision: no 32-bit hash")
}

// TestLenient: DEL works with what is left of a configuration.
func TestLenient(t *testing.T) {
	c, err := config.Parse([]byte(`{"cniVersion":"1.0.0","name":"ovsnet","type":"ovs-gre","ipam":{"type":"host-local"}}`))
	if !errors.Is(err, config.ErrInvalid) || c.Name != "ovsnet" || c.Bridge != "obr0" || c.IPAM.Type != "host-local" || c.Timeout != 10*time.Second || len(c.Raw) == 0 {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = config.Parse(ovsgre(`,"bridge":"obr7","segment":"rack","mtu":"x","unknown":1,"ovsdb":"/x","tunnel":{"type":"vxlan","port":"x"},"nodes":[{"name":"a"},` + node2 + `],"prevResult":{}`))
	if err == nil || c.Bridge != "obr7" || c.OVSDB != "/x" || c.Tunnel.Type != "vxlan" || c.Segment != config.SegmentHost || string(c.PrevResult) != "{}" {
		t.Errorf("%+v, %v", c, err)
	}
	if len(c.Nodes) != 1 || c.Nodes[0].Name != "host2" {
		t.Errorf("nodes: %v, want the one that is sound", c.Nodes)
	}
	r, err := config.ParseRoutes(routesync(`,"mode":"x","table":7,"bridge":"obr7"`))
	if !errors.Is(err, config.ErrUnsupported) || r.Mode != config.ModeTunnel || r.Table != 7 || r.Bridge != "obr7" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestValidAttachments: GC removes nothing unless it is told what to keep.
func TestValidAttachments(t *testing.T) {
	list := func(a ...config.Attachment) *[]config.Attachment { return &a }
	one := config.Attachment{ContainerID: "c1", IfName: "eth0"}
	for _, tc := range []struct {
		keys string
		want *[]config.Attachment
		bad  bool
	}{
		{``, nil, false},
		// libcni marshals a nil slice: the runtime said that there are none.
		{`,"cni.dev/valid-attachments":null`, list(), false},
		{`,"cni.dev/valid-attachments":[]`, list(), false},
		{`,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]`, list(one), false},
		{`,"cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}]`, list(one), false},
		{`,"cni.dev/attachments":null`, list(), false},
		{`,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}],"cni.dev/attachments":[]`, list(one), false},
		{`,"cni.dev/valid-attachments":{}`, nil, true},
		{`,"cni.dev/valid-attachments":"c1"`, nil, true},
		{`,"cni.dev/valid-attachments":["c1"]`, nil, true},
		{`,"cni.dev/valid-attachments":[null]`, nil, true},
		{`,"cni.dev/valid-attachments":[{"containerID":"c1"}]`, nil, true},
		{`,"cni.dev/valid-attachments":[{"ifname":"eth0"}]`, nil, true},
		{`,"cni.dev/valid-attachments":{},"cni.dev/attachments":[]`, nil, true},
	} {
		c, err := config.Parse(ovsgre(tc.keys + `,"nodes":` + two))
		r, rerr := config.ParseRoutes(routesync(tc.keys))
		if errors.Is(err, config.ErrInvalid) != tc.bad || (err != nil) != tc.bad || (rerr != nil) != tc.bad {
			t.Errorf("%s: %v, %v", tc.keys, err, rerr)
		}
		for _, got := range []*[]config.Attachment{c.Valid, r.Valid} {
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" || (got == nil) != (tc.want == nil) {
				t.Errorf("%s, -want +got:\n%s", tc.keys, diff)
			}
		}
	}
}
