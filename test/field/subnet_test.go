package field

import (
	"encoding/json"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/doctor"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestSubnetIsTaken: a container subnet, or a part of it, that this host has
// already by a link, a route or another network is refused with both sides, and
// nothing changes; what merely covers it is no overlap (moby#21141,
// podman#18656, rancher-desktop#2935: the LAN was cut off from the host).
func TestSubnetIsTaken(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	n := cnitest.Network{}
	n.Install(t, l)
	routers(t, l)
	conf := cnitest.PluginConf(t, n.Conflist(l), "ovs-gre", nil)
	const nic = "ip link add mgmt type bridge; ip link set mgmt addrgenmode none up; "
	for _, tt := range []struct {
		name, do, undo string
		has            []string // what stands in the way; none is nothing
	}{
		{"an address", nic + "ip address add 192.168.1.23/24 dev mgmt", "ip link delete mgmt", []string{"192.168.1.0/24", "192.168.1.23/24 dev mgmt"}},
		{"an address, the link down", "ip link add mgmt type bridge; ip address add 192.168.1.23/24 dev mgmt", "ip link delete mgmt", []string{"192.168.1.23/24 dev mgmt"}},
		{"a part", nic + "ip address add 192.168.1.130/25 dev mgmt", "ip link delete mgmt", []string{"192.168.1.0/24", "192.168.1.130/25 dev mgmt"}},
		{"IPv6", nic + "ip address add fd92:1::77/64 dev mgmt nodad", "ip link delete mgmt", []string{"fd92:1::/64", "fd92:1::77/64 dev mgmt"}},
		{"a route", "ip route add 192.168.1.0/25 via 172.16.32.2", "ip route delete 192.168.1.0/25", []string{"192.168.1.0/25 via 172.16.32.2"}},
		{"a route of a policy", "ip rule add from 172.16.32.100 lookup 100; ip route add 192.168.1.0/24 via 172.16.32.2 table 100",
			"ip rule del from 172.16.32.100 lookup 100; ip route flush table 100", []string{"192.168.1.0/24", "table 100"}},
		{"a router", nic + "ip address add 192.168.200.23/16 dev mgmt; ip route add default via 192.168.1.1 metric 7", "ip link delete mgmt",
			[]string{"192.168.1.0/24", "192.168.1.1 as the next hop of 0.0.0.0/0 via 192.168.1.1 dev mgmt"}},
		{"one router of two", nic + "ip address add 192.168.200.23/16 dev mgmt; ip route add 198.51.100.0/24 nexthop via 172.16.32.2 nexthop via 192.168.1.254",
			"ip route delete 198.51.100.0/24; ip link delete mgmt", []string{"192.168.1.0/24", "192.168.1.254 as the next hop of 198.51.100.0/24"}},
		{"a router onlink", "ip route add 198.51.100.0/24 via 192.168.1.254 dev $(ip -o -4 address show to 172.16.32.100 | cut -d' ' -f2) onlink",
			"ip route delete 198.51.100.0/24", []string{"192.168.1.0/24", "192.168.1.254 as the next hop of 198.51.100.0/24"}},
		{"a wider network", nic + "ip address add 192.168.200.23/16 dev mgmt", "ip link delete mgmt", nil},
		{"a wider route", "ip route add 192.168.0.0/16 via 172.16.32.2; ip route add blackhole 192.0.0.0/8", "ip route delete 192.168.0.0/16; ip route delete 192.0.0.0/8", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.Shell(t, tt.do)
			defer h.Shell(t, tt.undo)
			before := cnitest.MustLook(t, h)
			if tt.has == nil {
				c := attached(t, h, "c1", conf)
				hasNot(t, "doctor", cnitest.Ctl(t, h, "doctor").Out, "FAIL  subnets")
				del(t, c, conf)
				c.Delete(t)
				settled(t, before, h)
				return
			}
			refused(t, h, conf, tt.has...)
			settled(t, before, h)
			sound(t, h)
		})
	}
}

// TestSubnetOfAnotherNetwork: a network of ours stands in the way of another as
// anything does; with the first gone the second comes up.
func TestSubnetOfAnotherNetwork(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	red := cnitest.Network{}
	blue := cnitest.Network{Name: "blue", OVSGRE: cnitest.Conf{"bridge": "obr1", "tunnel": cnitest.Conf{"type": "gre", "key": 2}}}
	red.Install(t, l)
	c := cnitest.Add(t, h, "ovsnet", "c1")
	conf := cnitest.PluginConf(t, blue.Conflist(l), "ovs-gre", nil)
	before := cnitest.MustLook(t, h)
	refused(t, h, conf, "192.168.1.0/24", "192.168.1.1/24 dev obr0")
	settled(t, before, h)
	ping(t, h, c)
	if err := c.Call("del"); err != nil {
		t.Error(err)
	}
	attached(t, h, "c2", conf)
}

// refused fails the test unless ADD and STATUS say who is in the way.
func refused(t *testing.T, h *testnet.Host, conf string, has ...string) {
	t.Helper()
	c := h.NewNetns(t, "refused")
	defer c.Delete(t)
	_, err := cnitest.Call(c, "ovs-gre", "ADD", conf)
	cnitest.WantError(t, err, foreign, append(has, "container subnet", "give the network other subnets")...)
	if _, err := cnitest.Plugin(h, "ovs-gre", "STATUS", conf); err == nil || !strings.Contains(err.Error(), has[0]) {
		t.Errorf("STATUS: %v", err)
	}
}

// sound fails the test where a command of doctor's removes what is not ours, or
// would be refused by what is in the way.
func sound(t *testing.T, h *testnet.Host) {
	t.Helper()
	var found []doctor.Finding
	out := cnitest.Ctl(t, h, "doctor", "--output", "json").Out
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	failed := false
	for _, f := range found {
		failed = failed || f.Level == doctor.Fail
		hasNot(t, "command of "+f.Check, " "+f.Command+" ", "ip address del", "ip addr del", "ip link del", "ip rule del", "route del", "del-port", "del-br", " -D ", " flush ", "ovs-grectl up")
	}
	if !failed {
		t.Errorf("doctor has found nothing: %s", out)
	}
}

// TestDoctorRemovesNothingForeign: whatever stands in the way of ours, no
// command of doctor's removes it or calls up, which would be refused (messages.md P5).
func TestDoctorRemovesNothingForeign(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	datapath := ""
	if l.Datapath != "" {
		datapath = " -- set bridge obr0 datapath_type=" + l.Datapath
	}
	for _, tt := range []struct{ name, do, undo string }{
		{"bridge", "ovs-vsctl add-br obr0" + datapath, "ovs-vsctl del-br obr0"},
		{"link", "ip link add obr0 type bridge", "ip link delete obr0"},
		{"broken conflist", "ip link add obr0 type bridge; echo '{' >/etc/cni/net.d/99-broken.conflist", "ip link delete obr0; rm /etc/cni/net.d/99-broken.conflist"},
		{"port without a link", "ovs-vsctl add-br other -- add-port other nosuchdev 2>/dev/null; ip link add obr0 type bridge", "ovs-vsctl del-br other; ip link delete obr0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.Shell(t, tt.do)
			defer h.Shell(t, tt.undo)
			sound(t, h)
		})
	}
	t.Run("route", func(t *testing.T) {
		if r := cnitest.Ctl(t, h, "up"); r.Code != 0 {
			t.Fatalf("up: %+v", r)
		}
		h.Shell(t, "ip route delete 192.168.2.0/24; ip route add 192.168.2.0/24 via 172.16.32.2")
		sound(t, h)
	})
}
