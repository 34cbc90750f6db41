package field

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestNextContainerRepairs: what somebody does to the host between two
// containers, the next ADD brings about again, as users of the plugin bridge are
// used to (kubespray#723, podman#3842, plugins#512, talos#13457).
func TestNextContainerRepairs(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}}.Install(t, l)
	far := cnitest.Add(t, l.Hosts[1], "ovsnet", "far")
	first := cnitest.Add(t, h, "ovsnet", "c0")
	tunnel := strings.TrimSpace(h.Shell(t, "ovs-vsctl --bare --columns=name find port external_ids:ovs-gre.role=tunnel"))
	for i, tt := range []struct{ name, do string }{
		{"gateway addresses", "ip address flush dev obr0"},
		{"nft flush ruleset", "nft flush ruleset"},
		{"ip_forward", "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0"},
		{"tunnel", "ovs-vsctl del-port " + tunnel},
		{"tunnel's remote", "ovs-vsctl set interface " + tunnel + " options:remote_ip=172.16.32.99"},
		{"FORWARD's policy", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP"},
		{"underlay's MTU", lowerMTU(h, 1400)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.Shell(t, tt.do)
			c := cnitest.Add(t, h, "ovsnet", fmt.Sprintf("c%d", i+1))
			ping(t, c, far)
			ping(t, first, far)
			if strings.Contains(tt.name, "MTU") {
				has(t, "the container's link", c.Shell(t, "ip -o link show eth0"), "mtu 1362 ")
				has(t, "the gateway's link", h.Shell(t, "ip -o link show obr0"), "mtu 1362 ")
			}
			if err := c.Call("check"); err != nil {
				t.Errorf("CHECK: %v", err)
			}
		})
	}
}

// lowerMTU is the command that gives the underlay's link another MTU.
func lowerMTU(h *testnet.Host, mtu int) string {
	if h.UnderlayLink == "br-phy" {
		return fmt.Sprintf("ovs-vsctl set interface br-phy mtu_request=%[1]d; ip link set br-phy mtu %[1]d", mtu)
	}
	return fmt.Sprintf("ip link set %s mtu %d", h.UnderlayLink, mtu)
}

// TestBridgeForgotten: a second network whose conflist forgot the key bridge is
// refused, and whatever is then done about it lets the first be (podman#3755,
// nerdctl#657: the refused ADD took the first network's gateway away).
func TestBridgeForgotten(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	routers(t, l)
	far := cnitest.Add(t, l.Hosts[1], "ovsnet", "far")
	red := cnitest.Add(t, h, "ovsnet", "c1")
	green := cnitest.Network{Name: "green", OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"type": "gre", "key": 2}},
		Subnets: func(i int) []string { return []string{fmt.Sprintf("192.168.%d.0/24", i+51)} }}
	h.WriteFile(t, "/root/green.conflist", green.Conflist(l))
	conf := cnitest.PluginConf(t, green.Conflist(l), "ovs-gre", nil)
	c := h.NewNetns(t, "refused")
	before := cnitest.MustLook(t, h)
	stays := func(after string) {
		t.Helper()
		if err := before.Settled(h); err != nil {
			t.Errorf("after %s: %v", after, err)
		}
		ping(t, red, far)
	}
	_, err := cnitest.Call(c, "ovs-gre", "ADD", conf)
	cnitest.WantError(t, err, foreign, "obr0", `network "ovsnet"`)
	stays("ADD")
	for _, verb := range []string{"down", "gc"} {
		cnitest.Ctl(t, h, verb, "/root/green.conflist")
		stays(verb)
	}
	_, _ = cnitest.Plugin(h, "ovs-gre", "GC", with(t, conf, cnitest.Conf{"cni.dev/valid-attachments": []string{}}))
	stays("GC")
}

// TestTwoNetworksOnOneLinuxBridge: in segment host both work, and one that goes
// leaves the other its addresses.
func TestTwoNetworksOnOneLinuxBridge(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	for _, h := range l.Hosts {
		h.Shell(t, "ip link add br0 type bridge; ip link set br0 up")
	}
	h := l.Hosts[0]
	var cs, far []*cnitest.Container
	for k, name := range []string{"red", "blue"} {
		cnitest.Network{Name: name, Subnets: func(i int) []string { return []string{fmt.Sprintf("192.168.%d.0/24", 10*k+i+1)} },
			OVSGRE: cnitest.Conf{"bridge": fmt.Sprintf("obr%d", k), "linuxBridge": "br0", "tunnel": cnitest.Conf{"type": "gre", "key": k + 1}}}.Install(t, l)
		cs, far = append(cs, cnitest.Add(t, h, name, name)), append(far, cnitest.Add(t, l.Hosts[1], name, "far"+name))
	}
	for k := range cs {
		ping(t, cs[k], far[k])
	}
	has(t, "status", cnitest.Ctl(t, h, "status").Out, "as it should be")
	hasNot(t, "status", cnitest.Ctl(t, h, "status").Out, "DRIFT")
	if err := cs[1].Call("del"); err != nil {
		t.Error(err)
	}
	ping(t, cs[0], far[0])
	cs[1].Attach(t)
	ping(t, cs[1], far[1])
	ping(t, cs[0], far[0])
}

// TestSilentOVSDB: where ovsdb-server hangs, each command says so and ends; ping and
// picture waited for ever, up, down and gc a minute.
func TestSilentOVSDB(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	before := cnitest.MustLook(t, h)
	h.Shell(t, "kill -STOP $(cat /run/openvswitch/ovsdb-server.pid)")
	var all sync.WaitGroup
	for _, command := range []string{"up", "down", "gc", "ping", "picture", "status"} {
		all.Go(func() {
			r := output(h, "timeout -k 1 55 /opt/cni/bin/ovs-grectl %s 2>&1; echo exit $?", command)
			hasNot(t, command, r, "exit 124", "exit 137")
			if command != "ping" { // which answers for the underlay
				has(t, command, r, "OVSDB /var/run/openvswitch/db.sock did not answer in time", "exit 2")
			}
		})
	}
	all.Wait()
	h.Shell(t, "kill -CONT $(cat /run/openvswitch/ovsdb-server.pid)")
	if r := cnitest.Ctl(t, h, "down"); r.Code != 0 {
		t.Errorf("down: %+v", r)
	}
	h.Shell(t, "rm -rf /run/ovs-gre") // the lock of up
	settled(t, before, h)
}
