package field

import (
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/test/cnitest"
)

// TestNameIsNoPath: no verb of either plugin takes for the name of a network
// what ADD refuses. skel reads the key NAME for name, which passes it
// (hostile.md row 15: DEL removed /run/victim).
func TestNameIsNoPath(t *testing.T) {
	t.Parallel()
	h := lab(t, 1).Hosts[0]
	c := h.NewNetns(t, "c1")
	h.Shell(t, `mkdir -p /run/victim/leases /run/victim/routes /run/ovs-gre /var/lib/cni/victim /var/lib/cni/networks
		touch /run/victim/persistent-not /var/lib/cni/victim/192.168.1.9 /run/victim/config.json /run/victim/routes.json`)
	before := h.Shell(t, "find /run/victim /run/ovs-gre /var/lib/cni | sort")
	nodes := fmt.Sprintf(`"nodes":[{"name":"host1","address":%q,"subnets":["192.168.1.0/24"]}]`, h.Addr4)
	for _, plugin := range []string{"ovs-gre", "route-sync"} {
		for _, verb := range []string{"ADD", "CHECK", "DEL", "GC", "STATUS"} {
			for _, names := range []string{`"name":"../victim","NAME":"fine"`, `"name":"../../var/lib/cni/victim","Name":"fine"`, `"name":"..","NAME":"fine"`, `"name":"","NAME":"fine"`} {
				conf := `{"cniVersion":"1.1.0",` + names + `,"type":"` + plugin + `","cni.dev/valid-attachments":[],"prevResult":{"cniVersion":"1.1.0"},` + nodes + `,"ipam":{"type":"host-local"}}`
				_, err := cnitest.Call(c, plugin, verb, conf)
				if err == nil {
					t.Errorf("%s %s with %s passes", plugin, verb, names)
					continue
				}
				cnitest.WantError(t, err, invalid, "name", "want a network name")
			}
		}
	}
	if after := h.Shell(t, "find /run/victim /run/ovs-gre /var/lib/cni | sort"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestKeysTwiceOrInAnotherCase: ADD refuses what two readers would read
// differently, and says which key it is; nothing is made (hostile.md row 15).
func TestKeysTwiceOrInAnotherCase(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	c := h.NewNetns(t, "c1")
	before := cnitest.MustLook(t, h)
	conf := cnitest.PluginConf(t, cnitest.Network{}.Conflist(l), "ovs-gre", nil)
	for insert, says := range map[string]string{
		`"bridge":"obr7","bridge":"obr8"`:                               "bridge: the key stands twice",
		`"tunnel":{"key":1,"key":2}`:                                    "tunnel.key: the key stands twice",
		`"runtimeConfig":{"MAC":"02:00:00:00:00:01"}`:                   "runtimeConfig.MAC: unknown key (did you mean",
		`"args":{"cni":{"ips":["192.168.1.9"],"ips":["192.168.1.10"]}}`: "args.cni.ips: the key stands twice",
	} {
		_, err := cnitest.Call(c, "ovs-gre", "ADD", "{"+insert+","+conf[1:])
		cnitest.WantError(t, err, invalid, says)
	}
	for from, to := range map[string]string{`"subnets":`: `"Subnets":`, `"type":"host-local"`: `"type":"host-local","DATADIR":"/x"`} {
		_, err := cnitest.Call(c, "ovs-gre", "ADD", strings.Replace(conf, from, to, 1))
		cnitest.WantError(t, err, invalid, "unknown key (did you mean")
	}
	settled(t, before, h)
	h.WriteFile(t, "/etc/cni/net.d/10-ovsnet.conflist", strings.Replace(cnitest.Network{}.Conflist(l), `"nodes":`, `"mtu":1400,"mtu":1401,"nodes":`, 1))
	has(t, "doctor", cnitest.Ctl(t, h, "doctor").Out, "plugins[0].mtu: the key stands twice")
	if r := cnitest.Ctl(t, h, "up"); r.Code != 2 || !strings.Contains(r.Err, "plugins[0].mtu: the key stands twice") {
		t.Errorf("up: %+v", r)
	}
}

// TestLongNames: a network of 180 characters and a container of 64 work, from
// ADD to the last DEL (libnetwork#402: "numerical result out of range").
func TestLongNames(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	routers(t, l)
	before := cnitest.MustLook(t, h)
	n := cnitest.Network{Name: strings.Repeat("long-name.", 18), OVSGRE: cnitest.Conf{"ipMasq": true}}
	conf := cnitest.PluginConf(t, n.Conflist(l), "ovs-gre", nil)
	id := "CNI_CONTAINERID=" + strings.Repeat("0123456789abcdef", 4)
	c := attached(t, h, "c1", conf, id, "CNI_IFNAME=fifteen-letters")
	c2 := attached(t, h, "c2", conf)
	ping(t, c2, c)
	if _, err := cnitest.Call(c.Netns, "ovs-gre", "CHECK", with(t, conf, cnitest.Conf{"prevResult": c.Result}), id, "CNI_IFNAME=fifteen-letters"); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	valid := cnitest.Conf{"cni.dev/valid-attachments": []config.Attachment{{ContainerID: strings.TrimPrefix(id, "CNI_CONTAINERID="), IfName: "fifteen-letters"}}}
	if _, err := cnitest.Plugin(h, "ovs-gre", "GC", with(t, conf, valid)); err != nil {
		t.Errorf("GC: %v", err)
	}
	ping(t, h, c)
	del(t, c, conf, id, "CNI_IFNAME=fifteen-letters")
	h.Shell(t, "ip netns delete c1; ip netns delete c2")
	settled(t, before, h)

	c3 := h.NewNetns(t, "c3")
	_, err := cnitest.Call(c3, "ovs-gre", "ADD", conf, "CNI_CONTAINERID="+strings.Repeat("x", 200))
	cnitest.WantError(t, err, badEnv, "CNI_CONTAINERID: 200 characters, at most 75 fit")
	c3.Delete(t)
	settled(t, before, h)
}

// TestBridgeNamedAsTunnels: a network's bridge may have the name that the bridge
// of another's tunnels would have, where that has none: neither touches it nor
// takes its subnets for its own.
func TestBridgeNamedAsTunnels(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	mesh := cnitest.Network{OVSGRE: cnitest.Conf{"segment": "mesh"}}
	conf := cnitest.PluginConf(t, mesh.Conflist(l), "ovs-gre", nil)
	green := cnitest.Network{Name: "green", OVSGRE: cnitest.Conf{"bridge": "obr0-t", "tunnel": cnitest.Conf{"type": "gre", "key": 2}},
		Subnets: func(i int) []string { return []string{fmt.Sprintf("192.168.%d.0/24", i+51)} }}
	other := cnitest.PluginConf(t, green.Conflist(l), "ovs-gre", nil)
	attached(t, h, "c1", conf)
	attached(t, h, "g1", other)
	h.Shell(t, "ip link set obr0 address 02:00:00:00:00:01") // something to mend
	attached(t, h, "c2", conf)
	has(t, "obr0-t", h.Shell(t, "ip addr show dev obr0-t"), "192.168.51.1/24")

	taken := with(t, conf, cnitest.Conf{"nodes": []cnitest.Conf{{"name": "host1", "address": h.Addr4, "subnets": []string{"192.168.51.0/24"}}}})
	_, err := cnitest.Call(h.NewNetns(t, "c3"), "ovs-gre", "ADD", taken)
	cnitest.WantError(t, err, foreign, "192.168.51.0/24", "obr0-t")
}

// TestNamesOfNoLink: an interface name that no link can have is refused by an error that
// names CNI_IFNAME. A container that asks for the gateway's MAC address is refused, too.
func TestNamesOfNoLink(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	c := h.NewNetns(t, "c1")
	routers(t, l)
	before := cnitest.MustLook(t, h)
	conf := cnitest.PluginConf(t, cnitest.Network{}.Conflist(l), "ovs-gre", nil)
	for _, name := range []string{"eth%d", "%d", "all", "default"} {
		_, err := cnitest.Call(c, "ovs-gre", "ADD", conf, "CNI_IFNAME="+name)
		cnitest.WantError(t, err, badEnv, fmt.Sprintf("CNI_IFNAME %q: the kernel has no links of this name", name))
		if _, err := cnitest.Call(c, "ovs-gre", "DEL", conf, "CNI_IFNAME="+name); err != nil {
			t.Errorf("DEL of %s: %v", name, err)
		}
	}
	const gateway = "0a:58:c0:a8:01:01"
	for _, more := range []cnitest.Conf{{"runtimeConfig": cnitest.Conf{"mac": gateway}, "capabilities": cnitest.Conf{"mac": true}}, {"args": cnitest.Conf{"cni": cnitest.Conf{"mac": gateway}}}} {
		_, err := cnitest.Call(c, "ovs-gre", "ADD", with(t, conf, more))
		cnitest.WantError(t, err, invalid, "the MAC address "+gateway+" that was asked for is the gateway's own")
	}
	settled(t, before, h)
}
