package field

import (
	"fmt"
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
