package config_test

import (
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/test/golden"
)

// TestStrict: a key that stands twice, or that is spelled in another case, is
// told by its whole path, wherever in the configuration it is.
func TestStrict(t *testing.T) {
	var b strings.Builder
	for _, keys := range []string{
		`"name":"../victim","NAME":"fine"`, `"name":"fine","name":"../victim"`, `"TYPE":"bridge"`, `"CNIVersion":"1.0.0"`, `"Nodes":[]`, `"nodesfile":"/x"`,
		`"mtu":1400,"mtu":1401`, `"m\u0074u":1400,"mtu":1401`,
		`"nodes":[{"Name":"host1","name":"host9","address":"172.16.32.9","subnets":["192.168.9.0/24"]}]`,
		`"nodes":[{"name":"a","name":"b","ADDRESS":"172.16.32.9","address":"172.16.32.9","Subnets":["192.168.9.0/24"]}]`,
		`"nodes":[{"name":"a","address":"172.16.32.9","ſubnets":["192.168.9.0/24"]}]`,
		`"tunnel":{"type":"gre","TYPE":"vxlan"}`, `"tunnel":{"key":1,"key":2}`,
		`"ipam":{"type":"host-local","Type":"static"}`, `"ipam":{"type":"host-local","datadir":"/x","Subnet":"192.168.1.0/24"}`,
		`"ipam":{"type":"host-local","ranges":[[{"subnet":"192.168.1.0/24","RangeStart":"192.168.1.9","subnet":"192.168.1.0/25"}]],"routes":[{"DST":"0.0.0.0/0"}]}`,
		`"ipam":{"type":"other","DataDir":"/x","pool":{"a":1,"a":2}}`,
		`"args":{"CNI":{"mac":"02:00:00:00:00:01"}}`, `"args":{"cni":{"MAC":"02:00:00:00:00:01","ips":[],"ips":[]}}`,
		`"runtimeConfig":{"Mac":"02:00:00:00:00:01","IPs":[],"ipranges":[]}`, `"runtimeConfig":{"portMappings":[{"hostPort":1,"hostPort":2}]}`,
		`"capabilities":{"ips":true,"ips":true,"IPs":true}`, `"dns":{"Nameservers":["192.0.2.53"],"domain":"a","domain":"b"}`,
		`"cni.dev/valid-attachments":[{"containerId":"a","ifname":"eth0"}]`, `"cni.dev/Valid-Attachments":[]`, `"cni.dev/valid-attachments":[],"cni.dev/valid-attachments":null`,
		`"prevResult":{"ips":[],"ips":[]}`, `"cni.dev/x":{"a":[{"b":1,"b":1}]}`, `"nerdctlLabels":{"a":"1","a":"2"}`,
	} {
		stdin := `{"name":"ovsnet",` + keys + `}`
		if strings.Contains(keys, `"name":"../victim"`) {
			stdin = `{` + keys + `}`
		}
		_, err := config.Parse([]byte(stdin))
		show(t, &b, keys, err)
	}
	many := `"cni.dev/x":{`
	for i := range 100 {
		many += `"k` + strings.Repeat("x", i) + `":1,`
	}
	_, err := config.Parse([]byte(`{"name":"ovsnet","nodes":` + two + `,` + many + `"kxx":2}}`))
	show(t, &b, "one of many keys twice", err)
	_, err = config.ParseRoutes(routesync(`,"Table":100,"table":"main","table":"local","nodes":[{"name":"a","NAME":"b","address":"172.16.32.9","subnets":["192.168.9.0/24"]}]`))
	show(t, &b, "route-sync", err)
	_, err = config.DecodeNodes("nodes", []byte(`[{"name":"a","Address":"172.16.32.9","subnets":["192.168.9.0/24"],"subnets":[]}]`))
	show(t, &b, "a nodes file", err)
	golden.Compare(t, "testdata/strict.golden", b.String())

	for _, fine := range []string{
		// Keys of one spelling in different objects, and of others' objects.
		`"ipam":{"type":"other","Type_":1,"a":{"A":1,"a":2}},"args":{"cni":{"labels":[{"key":"a"},{"key":"a"}]},"Other":1}`,
		`"prevResult":{"IPs":[],"ips":[]},"cni.dev/x":{"a":"\"a\":1,\"a\":2"}`, `"mtu" : 1400 , "tunnel" : { "key" : 0 }`,
	} {
		if _, err := config.Parse(ovsgre(`,"nodes":` + two + `,` + fine)); err != nil {
			t.Errorf("%s: %v", fine, err)
		}
	}
}

// TestParseListTwice: runtimes leave one of two equal keys, so the file is where
// both are seen. Other plugins' keys are theirs.
func TestParseListTwice(t *testing.T) {
	var b strings.Builder
	for _, file := range []string{
		`{"name":"blue","name":"green","plugins":[{"type":"ovs-gre"}]}`, `{"plugins":[{"type":"portmap","snat":true,"snat":false}],"name":"x","plugins":[{"type":"route-sync"}]}`,
		`{"name":"blue","plugins":[{"type":"portmap"},{"type":"ovs-gre","mtu":1400,"mtu":1500}]}`,
		`{"name":"blue","type":"ovs-gre","nodes":[{"name":"a","name":"b"}]}`,
	} {
		_, err := config.ParseList([]byte(file))
		show(t, &b, file, err)
	}
	golden.Compare(t, "testdata/list.golden", b.String())
	for _, file := range []string{
		`{"name":"blue","plugins":[{"type":"ovs-gre"},{"type":"portmap","snat":true,"snat":false}]}`, `{"name":"blue","name":"green","plugins":[{"type":"bridge"}]}`,
	} {
		if _, err := config.ParseList([]byte(file)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestStrange: keys that people bring along from conflists for other plugins or
// for earlier versions, and capabilities that ovs-gre has not, are told with what helps.
func TestStrange(t *testing.T) {
	var b strings.Builder
	for _, keys := range []string{
		`"isGateway":true,"hairpinMode":true,"promiscMode":false,"forceAddress":true,"vlan":5,"vlanTrunk":[],"macspoofchk":true,"ipMasqBackend":"nftables","portIsolation":true`,
		`"transitVLAN":4094,"tunnel":{"transitVLAN":1}`,
		`"socket_file":"unix:/x","trunk":[],"master":"eth0","delegate":{}`,
		`"capabilities":{"ips":true,"portMappings":true,"bandwidth":false}`, `"capabilities":[]`, `"capabilities":{"ips":"yes"}`,
		`"dns":[]`, `"dns":{"nameservers":"192.0.2.53"}`, `"dns":{"domain":[]}`, `"dns":{"servers":["192.0.2.53"]}`,
	} {
		_, err := config.Parse(ovsgre(`,"nodes":` + two + `,` + keys))
		show(t, &b, keys, err)
	}
	_, err := config.ParseRoutes(routesync(`,"capabilities":{"ips":true}`))
	show(t, &b, "route-sync", err)
	golden.Compare(t, "testdata/strange.golden", b.String())
}

// TestCompleted: DEL's configuration gets back what it has lost, and keeps what
// it has.
func TestCompleted(t *testing.T) {
	kept := ovsgre(`,"bridge":"obr7","ovsdb":"unix:/x","nodes":` + two + `,"ipam":{"type":"host-local","dataDir":"/y"},"tunnel":{"type":"vxlan","key":7}`)
	for _, tc := range []struct{ given, bridge, ovsdb, ipam, dir, tunnel string }{
		{``, "obr7", "/x", "host-local", "/y", "vxlan"},
		{`,"bridge":"obr1","ipam":{}`, "obr1", "/x", "host-local", "/y", "vxlan"},
		{`,"ipam":{"type":"host-local"},"ovsdb":"unix:/z"`, "obr7", "/z", "host-local", "/y", "vxlan"},
		{`,"ipam":{"type":"static"},"tunnel":{"type":"gre"}`, "obr7", "/x", "static", "", "gre"},
		{`,"nodesFile":"/nodes"`, "obr7", "/x", "host-local", "/y", "vxlan"},
	} {
		c, _ := config.Parse(ovsgre(tc.given))
		c = c.Completed(kept)
		if c.Bridge != tc.bridge || c.OVSDB != tc.ovsdb || c.IPAM.Type != tc.ipam || c.IPAM.DataDir != tc.dir || c.Tunnel.Type != tc.tunnel || c.NodesFile != "" && c.Nodes != nil {
			t.Errorf("%s: %+v", tc.given, c)
		}
		if again := c.Completed(kept); again != c {
			t.Errorf("%s: not complete", tc.given)
		}
	}
	for _, kept := range []string{"", "null", "{", "[]", "{}"} {
		c, _ := config.Parse(ovsgre(""))
		if c.Completed([]byte(kept)) != c {
			t.Errorf("%q adds something", kept)
		}
	}
}

// TestAlias: whatever name a network has, the kernel takes the aliases of its
// links, and they lead back to it and to no other (libnetwork#402).
func TestAlias(t *testing.T) {
	id, long := strings.Repeat("0123456789abcdef", 4), strings.Repeat("n", 180)
	for _, network := range []string{"a", long, long + "m", strings.Repeat("n", 166), strings.Repeat("n", 167), strings.Repeat("n", 200)} {
		alias := config.Alias(network, id, "fifteen-letters")
		if len(alias) > config.MaxAlias {
			t.Errorf("network of %d characters: an alias of %d", len(network), len(alias))
		}
		a, port, ok := config.ParseAlias(network, "renamed", alias)
		if want := (config.Attachment{ContainerID: id, IfName: "fifteen-letters"}); !ok || a != want || port != config.PortName(network, id, "fifteen-letters") {
			t.Errorf("%s: %v %s %v", alias, a, port, ok)
		}
		for _, other := range []string{"b", "aa", long[:179], long + "k", strings.Repeat("n", 165)} {
			if _, _, ok := config.ParseAlias(other, "renamed", alias); ok {
				t.Errorf("%s is network %s's too", alias, other)
			}
		}
	}
	if have := config.Alias("ovsnet", "c1", "eth0"); have != "ovs-gre ovsnet c1 eth0" {
		t.Error(have)
	}
}
