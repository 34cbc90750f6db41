package field

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/test/cnitest"
)

// TestDNS: what the configuration says of name servers is in the result, as
// with containernetworking's plugins; else what IPAM says (plugins#431).
func TestDNS(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	conf := cnitest.PluginConf(t, cnitest.Network{}.Conflist(l), "ovs-gre", nil)
	h.WriteFile(t, "/etc/cni/resolv.conf", "nameserver 198.51.100.53\nsearch ipam.example\n")
	ipam := cnitest.Conf{"type": "host-local", "resolvConf": "/etc/cni/resolv.conf"}
	own := types.DNS{Nameservers: []string{"192.0.2.53"}, Domain: "a.example", Search: []string{"b.example"}, Options: []string{"ndots:2"}}
	for i, tt := range []struct {
		conf cnitest.Conf
		want types.DNS
	}{
		{cnitest.Conf{"dns": own}, own},
		{cnitest.Conf{"dns": own, "ipam": ipam}, own},
		{cnitest.Conf{"dns": cnitest.Conf{}, "ipam": ipam}, types.DNS{Nameservers: []string{"198.51.100.53"}, Search: []string{"ipam.example"}}},
		{cnitest.Conf{"dns": cnitest.Conf{}}, types.DNS{}},
		{cnitest.Conf{"dns": own, "ipam": nil}, own},
	} {
		c := attached(t, h, fmt.Sprintf("c%d", i), with(t, conf, tt.conf))
		if diff := cmp.Diff(tt.want, c.Result.DNS); diff != "" {
			t.Errorf("%v, -want +got:\n%s", tt.conf, diff)
		}
		del(t, c, with(t, conf, tt.conf))
	}
}

// TestForeignKeys: what people bring along from bridge's conflists, and what the
// runtime would give for nothing, is told with what helps (nomad#11102, and
// most files that people adapt).
func TestForeignKeys(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	c := h.NewNetns(t, "c1")
	before := cnitest.MustLook(t, h)
	conf := cnitest.PluginConf(t, cnitest.Network{}.Conflist(l), "ovs-gre", nil)
	for _, tt := range []struct {
		conf cnitest.Conf
		says []string
	}{
		{cnitest.Conf{"isGateway": true, "hairpinMode": true, "promiscMode": true},
			[]string{"isGateway: unknown key (always so: leave it out)", "hairpinMode: unknown key (no such thing here", "promiscMode: unknown key (no such thing here"}},
		{cnitest.Conf{"capabilities": cnitest.Conf{"portMappings": true, "ips": true}}, []string{"capabilities.portMappings", "it has ips, mac, ipRanges"}},
		{cnitest.Conf{"dns": cnitest.Conf{"servers": []string{"192.0.2.53"}}}, []string{"dns.servers: unknown key"}},
		{cnitest.Conf{"transitVLAN": 4094}, []string{"transitVLAN 4094: not needed any more", "leave it out"}},
	} {
		_, err := cnitest.Call(c, "ovs-gre", "ADD", with(t, conf, tt.conf))
		cnitest.WantError(t, err, invalid, tt.says...)
	}
	settled(t, before, h)
}

// TestTwoDefaultRoutes: the second network of a container cannot have its
// default route too, and the error names the key (sriov-network-operator#812).
func TestTwoDefaultRoutes(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	red := cnitest.PluginConf(t, cnitest.Network{Name: "red"}.Conflist(l), "ovs-gre", nil)
	blue := cnitest.PluginConf(t, cnitest.Network{Name: "blue", OVSGRE: cnitest.Conf{"bridge": "obr1", "tunnel": cnitest.Conf{"key": 2}},
		Subnets: func(int) []string { return []string{"192.168.101.0/24", "fd93:1::/64"} }}.Conflist(l), "ovs-gre", nil)
	c := attached(t, h, "c1", red)
	before := cnitest.MustLook(t, h)
	_, err := cnitest.Call(c.Netns, "ovs-gre", "ADD", blue, "CNI_IFNAME=eth1")
	cnitest.WantError(t, err, invalid, "isDefaultGateway", "0.0.0.0/0", "set it to false")
	settled(t, before, h)
	cnitest.Result(t, c.Netns, "ovs-gre", with(t, blue, cnitest.Conf{"isDefaultGateway": false}), "CNI_IFNAME=eth1")
}

// TestGivenBridge: linuxBridge names what is no Linux bridge, or nothing: refused in one
// sentence before anything of that link changes (its MTU, its forwarding).
func TestGivenBridge(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	routers(t, l)
	h.Shell(t, "ip tuntap add nic mode tap; ip link set nic up; ip link add far type veth peer name near")
	c := h.NewNetns(t, "c1")
	conf := cnitest.PluginConf(t, cnitest.Network{}.Conflist(l), "ovs-gre", nil)
	const settings = "cd /proc/sys/net; grep -s . ipv4/conf/*/forwarding ipv4/conf/*/send_redirects ipv6/conf/*/accept_ra; ip -o link | sed 's/ state .*//'"
	before, set := cnitest.MustLook(t, h), h.Shell(t, settings)
	for _, tt := range []struct {
		link string
		code uint
		says string
	}{
		{"nic", foreign, "link nic is in the way"}, {"far", foreign, "kind veth and no Linux bridge (linuxBridge)"},
		{"lo", foreign, "link lo is in the way"}, {h.UnderlayLink, foreign, "no Linux bridge (linuxBridge)"},
		{"nosuch", tryAgain, "linuxBridge nosuch: not ready: this host has no Linux bridge of this name"},
	} {
		for _, segment := range []string{"host", "mesh"} {
			conf := with(t, conf, cnitest.Conf{"linuxBridge": tt.link, "segment": segment})
			_, err := cnitest.Call(c, "ovs-gre", "ADD", conf)
			cnitest.WantError(t, err, tt.code, tt.says)
			if err != nil && strings.Count(err.Error(), tt.link) > 3 {
				t.Errorf("%s: it says more than one thing: %v", tt.link, err)
			}
			if _, err := cnitest.Plugin(h, "ovs-gre", "STATUS", conf); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: STATUS: %v", tt.link, err)
			}
			settled(t, before, h)
			if now := h.Shell(t, settings); now != set {
				t.Errorf("%s:\n%s\nwas\n%s", tt.link, now, set)
			}
		}
	}
}

// TestAddressOfNoHost: a peer whose address cannot be another host's is refused, or
// named by the call that needs a route to it.
func TestAddressOfNoHost(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	c := h.NewNetns(t, "c1")
	routers(t, l)
	before := cnitest.MustLook(t, h)
	for _, tt := range []struct{ address, says string }{
		{"255.255.255.255", "nodes[1] (far).address \"255.255.255.255\": want a plain unicast address"},
		{"0.1.2.3", "nodes[1] (far).address \"0.1.2.3\": want a plain unicast address"},
		{"172.16.32.255", "route 192.168.2.0/24: invalid configuration: its next hop 172.16.32.255 is a broadcast address"},
		{"172.16.32.77", "route 192.168.2.0/24: invalid configuration: its next hop 172.16.32.77 is an address of this host itself"},
	} {
		n := cnitest.Network{OVSGRE: cnitest.Conf{"node": "near", "tunnel": cnitest.Conf{"ports": "peer"}, "nodes": []cnitest.Conf{
			{"name": "near", "address": h.Addr4.String(), "subnets": []string{"192.168.1.0/24"}},
			{"name": "far", "address": tt.address, "subnets": []string{"192.168.2.0/24"}}}}}
		n.Install(t, l)
		if tt.address == "172.16.32.77" {
			h.Shell(t, "ip address add 172.16.32.77/24 dev "+h.UnderlayLink)
			before = cnitest.MustLook(t, h)
		}
		c := &cnitest.Container{Netns: c, Network: "ovsnet", IfName: "eth0"}
		err := c.Call("add")
		if err == nil {
			t.Fatalf("%s: ADD works", tt.address)
		}
		has(t, tt.address, err.Error(), tt.says)
		if err := c.Call("del"); err != nil && tt.address[0] == '1' { // as a runtime does
			t.Errorf("%s: DEL: %v", tt.address, err)
		}
		settled(t, before, h)
	}
}
