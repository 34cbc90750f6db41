package config_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/config"
)

// checkError is what holds for every error: it wraps a sentinel, and each
// problem is one line that harms no terminal and fills no disk.
func checkError(t *testing.T, err error) {
	t.Helper()
	for _, e := range each(err) {
		if !errors.Is(e, config.ErrInvalid) && !errors.Is(e, config.ErrDecode) {
			t.Errorf("wraps no sentinel: %q", e)
		}
		if strings.ContainsFunc(e.Error(), unicode.IsControl) {
			t.Errorf("control characters: %q", e)
		}
		if len(e.Error()) > 2000 {
			t.Errorf("%d bytes: %.100q…", len(e.Error()), e)
		}
	}
}

// checkNodes: what passed is written as it can be read.
func checkNodes(t *testing.T, nodes []config.Node) {
	t.Helper()
	for _, n := range nodes {
		if n.Name == "" || !n.Address.IsValid() || len(n.Subnets) == 0 || len(n.Gateways()) != len(n.Subnets) {
			t.Errorf("half a node: %v", n)
		}
		for i, gw := range n.Gateways() {
			if !n.Subnets[i].Contains(gw) || gw.IsLoopback() || gw.IsMulticast() || gw.IsUnspecified() {
				t.Errorf("gateway %v of %v", gw, n)
			}
		}
		if strings.ContainsFunc(n.String(), unicode.IsControl) {
			t.Errorf("control characters: %q", n)
		}
	}
	raw, err := json.Marshal(nodes)
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.DecodeNodes("nodes", raw)
	if err != nil {
		t.Errorf("%s: %v", raw, err)
	}
	if diff := cmp.Diff(nodes, again, compareAddrs); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(ovsgre(`,"nodes":` + two + `,"tunnel":{"type":"vxlan","key":7,"port":8472},"ipam":{"type":"host-local"}`))
	f.Add(ovsgre(`,"nodesFile":"/x","cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}],"args":{"cni":{"mac":"02:00:00:00:00:01"}}`))
	f.Fuzz(func(t *testing.T, stdin []byte) {
		c, err := config.Parse(stdin)
		if err != nil {
			checkError(t, err)
			return
		}
		if len(c.Nodes) > 0 {
			checkNodes(t, c.Nodes)
		}
		if (len(c.Nodes) == 0) == (c.NodesFile == "") {
			t.Errorf("nodes %v, nodesFile %q", c.Nodes, c.NodesFile)
		}
		for _, name := range []string{c.Bridge, c.LinuxBridge, config.TransitLink(c.Bridge), config.PortName(c.Name, "c", "eth0")} {
			if len(name) > 15 || strings.ContainsAny(name, "/ \n'\"$`;") {
				t.Errorf("link name %q", name)
			}
		}
		if strings.Contains(c.Name, "/") || strings.HasPrefix(c.Name, ".") || c.Name == "" || len(config.FirewallTable(c.Name)) > 255 {
			t.Errorf("network name %q", c.Name)
		}
	})
}

func FuzzParseRoutes(f *testing.F) {
	f.Add(routesync(`,"mode":"auto","table":100,"metric":7,"nodes":` + two))
	f.Add(routesync(`,"prevResult":{},"table":"main","bridge":"obr0"`))
	f.Fuzz(func(t *testing.T, stdin []byte) {
		c, err := config.ParseRoutes(stdin)
		if err != nil {
			checkError(t, err)
			return
		}
		if len(c.Nodes) > 0 {
			checkNodes(t, c.Nodes)
		}
		if c.Table < 1 || c.Metric < 0 || len(c.Bridge) > 13 {
			t.Errorf("table %d, metric %d, bridge %q", c.Table, c.Metric, c.Bridge)
		}
	})
}

func FuzzDecodeNodes(f *testing.F) {
	f.Add([]byte(two))
	f.Add([]byte(nodes("a fd00::1 10.0.0.0/24 fd01::/64", "b fd00::2 10.0.1.0/24")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		nodes, err := config.DecodeNodes("nodes", raw)
		if err != nil {
			if !errors.Is(err, config.ErrInvalid) || errors.Is(err, config.ErrDecode) {
				t.Errorf("not ErrInvalid: %v", err)
			}
			checkError(t, err)
			return
		}
		if nodes == nil {
			t.Error("neither nodes nor an error")
		}
		checkNodes(t, nodes)
	})
}

// FuzzQuickNodes: a list that is read the quick way says the same to the way that can
// explain, and one with an escape, which takes that way, the same nodes.
func FuzzQuickNodes(f *testing.F) {
	for _, list := range []string{
		`[]`, ` [ ] `, `[{"name":"a","address":"172.16.0.1","subnets":["10.0.0.0/24"]}]`,
		`[{"subnets":["10.0.0.0/24","fd00::/64"],"address":"fd00:32::1","name":"a b"} , {"name":"c","address":"fd00:32::2","subnets":["10.0.1.0/24"]}]`,
		`[{"name":"a","address":"172.16.0.1","subnets":["10.0.0.0/24"]},]`, `[{"name":"a","address":"172.16.0.1","subnets":[]}]`,
		`[{"name":"a","name":"b","address":"172.16.0.1","subnets":["10.0.0.0/24"]}]`, `[{"name":"a","address":"10.0.0.1","subnets":["10.0.0.0/24"]}]`,
		`[{"name":"a","address":"172.16.0.1","subnets":["10.0.0.0/24","10.0.0.0/16"]}]`, `[{"name":"a","address":"::1","subnets":["0.0.0.0/0"]}] x`,
		`[{"name":"a","address":"172.16.0.1","subnets":["10.0.0.0/24"]},{"name":"a","address":"172.16.0.1","subnets":["10.0.1.0/24"]}]`,
	} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		nodes, err := config.DecodeNodes("nodes", []byte(list))
		slow := strings.NewReplacer(`"name"`, `"\u006eame"`, `"address"`, `"\u0061ddress"`, `"subnets"`, `"\u0073ubnets"`).Replace(list)
		explained, why := config.DecodeNodes("nodes", []byte(slow))
		if (err == nil) != (why == nil) || err == nil && !reflect.DeepEqual(nodes, explained) {
			t.Errorf("%s:\n%v, %v\n%v, %v", list, nodes, err, explained, why)
		}
	})
}
