package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestAddresses asks for addresses in all the ways that there are.
func TestAddresses(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	conflist := cnitest.Network{}.Conflist(l)
	const (
		argsIPs    = "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=pod;IP=192.168.1.30;MAC=02:00:00:00:00:30"
		byArgs4    = "192.168.1.30/24"
		byCNI4     = "192.168.1.20/24"
		byRuntime4 = "192.168.1.10/24"
		byRuntime6 = "fd92:1::10/64"
	)
	runtime := cnitest.Conf{"ips": []string{byRuntime4, byRuntime6}, "mac": "02:00:00:00:00:10"}
	cni := cnitest.Conf{"cni": cnitest.Conf{"ips": []string{byCNI4}, "mac": "02:00:00:00:00:20"}}
	for _, tt := range []struct {
		name string
		conf cnitest.Conf
		env  []string
		ips  []string // the ones that it must have; others are any
		mac  string   // "" is any
	}{
		{name: "nothing"},
		{name: "runtimeConfig", conf: cnitest.Conf{"runtimeConfig": runtime}, ips: []string{byRuntime4, byRuntime6}, mac: "02:00:00:00:00:10"},
		{name: "args.cni", conf: cnitest.Conf{"args": cni}, ips: []string{byCNI4}, mac: "02:00:00:00:00:20"},
		{name: "CNI_ARGS", env: []string{argsIPs}, ips: []string{byArgs4}, mac: "02:00:00:00:00:30"},
		{name: "runtimeConfig before all", conf: cnitest.Conf{"runtimeConfig": runtime, "args": cni}, env: []string{argsIPs}, ips: []string{byRuntime4, byRuntime6}, mac: "02:00:00:00:00:10"},
		{name: "args.cni before CNI_ARGS", conf: cnitest.Conf{"args": cni}, env: []string{argsIPs}, ips: []string{byCNI4}, mac: "02:00:00:00:00:20"},
		{name: "IPv6 of runtimeConfig, IPv4 of CNI_ARGS", conf: cnitest.Conf{"runtimeConfig": cnitest.Conf{"ips": []string{"fd92:1::11"}}}, env: []string{argsIPs}, ips: []string{byArgs4, "fd92:1::11/64"}, mac: "02:00:00:00:00:30"},
		{name: "IPv6 of runtimeConfig, IPv4 of args.cni", conf: cnitest.Conf{"runtimeConfig": cnitest.Conf{"ips": []string{byRuntime6}}, "args": cni}, env: []string{argsIPs}, ips: []string{byCNI4, byRuntime6}, mac: "02:00:00:00:00:20"},
		{name: "MAC of one, address of the other", conf: cnitest.Conf{"runtimeConfig": cnitest.Conf{"mac": "02:00:00:00:00:11"}}, env: []string{argsIPs}, ips: []string{byArgs4}, mac: "02:00:00:00:00:11"},
		{name: "ipRanges", conf: cnitest.Conf{"runtimeConfig": cnitest.Conf{"ipRanges": [][]cnitest.Conf{{{"subnet": "192.168.1.0/24", "rangeStart": "192.168.1.200", "rangeEnd": "192.168.1.201"}}}}},
			ips: []string{"192.168.1.200/24"}},
		{name: "ranges of the conflist", conf: cnitest.Conf{"ipam": cnitest.Conf{"type": "host-local", "ranges": [][]cnitest.Conf{{{"subnet": "192.168.1.0/24", "rangeStart": "192.168.1.100"}}}}},
			ips: []string{"192.168.1.100/24"}},
		{name: "static", conf: cnitest.Conf{"ipam": cnitest.Conf{"type": "static", "addresses": []cnitest.Conf{{"address": "192.168.1.77/24", "gateway": "192.168.1.1"}, {"address": "fd92:1::77/64"}}}},
			ips: []string{"192.168.1.77/24", "fd92:1::77/64"}},
		{name: "static by runtimeConfig", conf: cnitest.Conf{"ipam": cnitest.Conf{"type": "static"}, "runtimeConfig": runtime}, ips: []string{byRuntime4, byRuntime6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := snapshot(t, h)
			h.Shell(t, "rm -f /var/lib/cni/networks/ovsnet/last_reserved_ip*") // which host-local goes on from
			c := h.NewNetns(t, "c1")
			conf := cnitest.PluginConf(t, conflist, "ovs-gre", tt.conf)
			alone := `{"cniVersion":"1.1.0","name":"ovsnet","plugins":[` + conf + `]}`
			res := result(t, c, "ovs-gre", conf, tt.env...)
			got := strings.Fields(c.Shell(t, "ip -o address show dev eth0 scope global | sed 's/.* inet6* //; s/ .*//'"))
			for _, ip := range tt.ips {
				if !slices.Contains(got, ip) {
					t.Errorf("want %v in the container, got %v", tt.ips, got)
				}
			}
			var said []string
			for _, ip := range res.IPs {
				said = append(said, ip.Address.String())
				if ip.Interface == nil || *ip.Interface != 2 {
					t.Errorf("%s is not of interface 2", ip.Address.String())
				}
			}
			slices.Sort(said)
			slices.Sort(got)
			if !slices.Equal(said, got) {
				t.Errorf("the result says %v, the container has %v", said, got)
			}
			mac := strings.TrimSpace(c.Shell(t, "ip -o link show eth0 | sed 's/.*ether //; s/ .*//'"))
			if res.Interfaces[2].Mac != mac || tt.mac != "" && tt.mac != mac {
				t.Errorf("want the MAC address %q, the result says %s, the container has %s", tt.mac, res.Interfaces[2].Mac, mac)
			}
			for _, ip := range tt.ips {
				reach(t, "host to container", h, netip.MustParsePrefix(ip).Addr())
			}
			if _, err := call(c, "ovs-gre", "CHECK", cnitest.PluginConf(t, alone, "ovs-gre", cnitest.Conf{"prevResult": res}), tt.env...); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			if _, err := call(c, "ovs-gre", "DEL", conf, tt.env...); err != nil {
				t.Errorf("DEL: %v", err)
			}
			c.Delete(t)
			unchanged(t, h, before)
		})
	}
}

// TestNoDefaultGateway wants routes to the network and no others.
func TestNoDefaultGateway(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	cnitest.Network{OVSGRE: cnitest.Conf{"isDefaultGateway": false}}.Install(t, l)
	cs := one(t, l, "ovsnet")
	both(t, cs[0], cs[1])
	if got := cs[0].Shell(t, "ip route; ip -6 route | grep -v '^fe80'"); strings.Contains(got, "default") || !strings.Contains(got, "192.168.2.0/24 via 192.168.1.1 dev eth0") || !strings.Contains(got, "fd92:2::/64 via fd92:1::1 dev eth0") {
		t.Errorf("want routes to the peer's subnets and no default route, got:\n%s", got)
	}
	if n := len(cs[0].Result.Routes); n != 2 {
		t.Errorf("want two routes in the result, got %v", cs[0].Result.Routes)
	}
	if err := cs[0].Call("check"); err != nil {
		t.Errorf("CHECK: %v", err)
	}
}

// TestAddAgain: a second ADD of a container that is attached is refused, and takes
// nothing of the first one's, whatever has become of its lease and its OVS port.
func TestAddAgain(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	c := cnitest.Add(t, h, "ovsnet", "c")
	port := c.Result.Interfaces[1].Name
	for _, lost := range []string{"true", "rm /run/ovs-gre/ovsnet/leases/" + port, "ovs-vsctl del-port " + port,
		"rm -f /run/ovs-gre/ovsnet/leases/*; ovs-vsctl --if-exists del-port " + port} {
		h.Shell(t, lost)
		if err := c.Call("add"); err == nil || !strings.Contains(err.Error(), "attached to network ovsnet already") {
			t.Errorf("after %s: %v", lost, err)
		}
		if out := h.Shell(t, "ls /var/lib/cni/networks/ovsnet; ip link show "+port); !strings.Contains(out, c.Addr(t, false).String()+"\n") {
			t.Errorf("after %s: the address is no longer the container's: %s", lost, out)
		}
		if r := cnitest.Ctl(t, h, "up"); r.Code != 0 {
			t.Errorf("up after %s: %s%s", lost, r.Out, r.Err)
		}
		if err := c.Call("check"); err != nil {
			t.Errorf("after %s and up: CHECK: %v", lost, err)
		}
	}
}

// TestRestarted attaches a container again with its address and another MAC
// address. A peer reaches it at once, for the container says who it is now.
func TestRestarted(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	cnitest.Network{}.Install(t, l)
	peer := cnitest.Add(t, l.Hosts[0], "ovsnet", "peer")
	neighbour := cnitest.Add(t, l.Hosts[1], "ovsnet", "neighbour")
	c := &cnitest.Container{Netns: l.Hosts[1].NewNetns(t, "c1"), Network: "ovsnet", IfName: "eth0"}
	const same = `CAP_ARGS={"ips":["192.168.2.50/24","fd92:2::50/64"],"mac":"02:00:00:00:00:%02d"}`
	for i := range 4 {
		c.Attach(t, fmt.Sprintf(same, i))
		for _, v6 := range families {
			for _, from := range []*cnitest.Container{peer, neighbour} {
				// One packet: if it goes to the old address, nobody sends it again.
				if err := testnet.Ping(context.Background(), from, c.Addr(t, v6), testnet.PingOptions{Wait: 10 * time.Second}); err != nil {
					t.Errorf("%s, attachment %d, from the %s: %v", familyName(v6), i+1, from.Name, err)
				}
			}
		}
		if err := c.Call("del"); err != nil {
			t.Fatal(err)
		}
	}
}
