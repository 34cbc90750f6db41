package grectl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// A variant is a network that the suite runs.
type variant struct {
	name string
	net  cnitest.Network
}

func variants() []variant {
	masq := func(more cnitest.Conf) cnitest.Conf {
		c := cnitest.Conf{"ipMasq": true}
		for k, v := range more {
			c[k] = v
		}
		return c
	}
	return []variant{
		{"host", cnitest.Network{OVSGRE: masq(nil)}},
		{"mesh", cnitest.Network{OVSGRE: masq(cnitest.Conf{"segment": "mesh", "tunnel": cnitest.Conf{"type": "vxlan", "key": 7}})}},
		{"container", cnitest.Network{OVSGRE: masq(cnitest.Conf{"segment": "container", "tunnel": cnitest.Conf{"key": 9, "bfd": true}})}},
		{"IPv6 underlay", cnitest.Network{V6: true, OVSGRE: masq(cnitest.Conf{"tunnel": cnitest.Conf{"type": "geneve", "key": 5}})}},
		{"auto", cnitest.Network{V6: true, RouteSync: cnitest.Conf{"mode": "auto", "table": 100, "metric": 7}}},
	}
}

// TestUpDown: up makes the host state, twice is as good as once, hosts reach
// each other's gateways by it, and down leaves nothing.
func TestUpDown(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			l := lab(t, 2, v.net)
			h := l.Hosts[0]
			forward(t, h)
			before := cnitest.MustLook(t, h)
			if r := want(t, 1, h, "status"); !strings.Contains(r.out, "missing") {
				t.Errorf("status of nothing:\n%s", r.out)
			}
			upAll(t, l)
			if r := want(t, 0, h, "up"); r.out != "" {
				t.Errorf("the second up changed:\n%s", r.out)
			}
			r := want(t, 0, h, "status")
			for _, text := range []string{"as it should be", "persistent", "bridge", "tunnel", "route", "host2"} {
				if !strings.Contains(r.out, text) {
					t.Errorf("no %q in\n%s", text, r.out)
				}
			}
			for _, gw := range []string{"192.168.2.1", "fd92:2::1"} {
				if v.name == "auto" {
					break // table 100: no rule leads there
				}
				if _, err := h.Output(context.Background(), "ping", "-n", "-c", "1", "-W", "2", gw); err != nil {
					t.Error(err)
				}
			}
			want(t, 0, h, "down")
			same(t, "up and down", before, h)
			if r := want(t, 0, h, "down"); r.out != "" {
				t.Errorf("the second down changed:\n%s", r.out)
			}
		})
	}
}

// TestWords: up prints what plan prints, and down the same lines.
func TestWords(t *testing.T) {
	l := lab(t, 2, cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}})
	h := l.Hosts[0]
	type plan struct{ Commands []string }
	type deed struct{ Change string }
	plans := decode[[]plan](t, want(t, 0, h, "plan", "--output", "json"))
	if len(plans) != 1 || len(plans[0].Commands) < 10 {
		t.Fatalf("%+v", plans)
	}
	made := map[string]bool{}
	for _, d := range decode[[]deed](t, want(t, 0, h, "up", "--output=json")) {
		command, _, _ := strings.Cut(d.Change[2:], "  (was: ")
		made[command] = true
	}
	for command := range made {
		if !slices.Contains(plans[0].Commands, command) {
			t.Errorf("up did what is not in the plan: %s", command)
		}
	}
	for _, command := range plans[0].Commands {
		if !made[command] && !strings.HasPrefix(command, "sysctl") { // may have its value already
			t.Errorf("up did not do: %s", command)
		}
	}
	for _, d := range decode[[]deed](t, want(t, 0, h, "down", "-o", "json")) {
		// Of a bridge that nobody wants the MTU is not read.
		command, _, _ := strings.Cut(d.Change, " -- ")
		if !strings.HasPrefix(d.Change, "- ") || !slices.ContainsFunc(plans[0].Commands, func(p string) bool { return strings.HasPrefix(p, command[2:]) }) {
			t.Errorf("down did what is not in the plan: %s", d.Change)
		}
	}
}

// TestPlanIsAScript runs plan's output by sh on hosts without any state of
// ours, OVS not running while it is planned, and finds the state satisfied.
func TestPlanIsAScript(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			l := lab(t, 2, v.net)
			ctx := context.Background()
			script := want(t, 0, l.Hosts[0], "plan").out
			if strings.Contains(script, "\n# \n") {
				t.Errorf("a kind of command has no heading:\n%s", script)
			}
			if l.Datapath == testnet.DatapathSystem {
				if err := l.Hosts[0].StopOVS(ctx); err != nil {
					t.Fatal(err)
				}
				if again := want(t, 0, l.Hosts[0], "plan").out; again != script {
					t.Errorf("another plan without OVS:\n%s\n%s", script, again)
				}
				if err := l.Hosts[0].StartOVS(ctx); err != nil {
					t.Fatal(err)
				}
			}
			for _, h := range l.Hosts {
				h.WriteFile(t, "/run/plan.sh", want(t, 0, h, "plan", conflist).out)
				h.Run(t, "sh", "/run/plan.sh")
				want(t, 0, h, "status")
				h.Run(t, "sh", "/run/plan.sh")
				want(t, 0, h, "status")
			}
			h := l.Hosts[0]
			if r := want(t, 0, h, "up"); r.out != "" {
				t.Errorf("up changes what plan made:\n%s", r.out)
			}
			c := cnitest.Add(t, l.Hosts[1], "ovsnet", "c1")
			for _, v6 := range []bool{false, true} {
				if v.name != "auto" {
					ping(t, h, c, v6)
				}
			}
			if err := c.Call("check"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPlanWithoutOVS plans on a host that has no OVS at all.
func TestPlanWithoutOVS(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 2, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	cnitest.Network{}.Install(t, l)
	r := want(t, 0, l.Hosts[0], "plan")
	if !strings.HasPrefix(r.out, "#!/bin/sh\n") || !strings.Contains(r.out, "\nset -e\n") || !strings.Contains(r.out, "\novs-vsctl --may-exist add-br obr0 ") {
		t.Error(r.out)
	}
	l.Hosts[0].WriteFile(t, "/run/plan.sh", r.out)
	l.Hosts[0].Run(t, "sh", "-n", "/run/plan.sh")
	for _, verb := range []string{"up", "status", "down", "gc"} {
		if r := want(t, 2, l.Hosts[0], verb); !strings.Contains(r.out+r.err, "no OVSDB socket") {
			t.Errorf("%s: %s%s", verb, r.out, r.err)
		}
	}
}

// TestDownRefuses: containers that are attached keep the network, unless forced.
func TestDownRefuses(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h := l.Hosts[0]
	forward(t, h)
	before := cnitest.MustLook(t, h)
	want(t, 0, h, "up")
	c := cnitest.Add(t, h, "ovsnet", "c1")
	r := want(t, 1, h, "down")
	if !strings.Contains(r.err, "attached") || !strings.Contains(r.err, "eth0") || !strings.Contains(r.err, "--force") || r.out != "" {
		t.Errorf("%s%s", r.out, r.err)
	}
	want(t, 0, h, "status")
	want(t, 0, h, "down", "--force")
	if out := h.Shell(t, "ovs-vsctl list-br"); strings.Contains(out, "obr0") {
		t.Errorf("bridges: %s", out)
	}
	// What the container has comes back with up: its veth pair is still there.
	want(t, 0, h, "up")
	want(t, 0, h, "status")
	ping(t, h, c, false)
	// The last container leaves, and the network stays: it is persistent.
	if err := c.Call("del"); err != nil {
		t.Fatal(err)
	}
	want(t, 0, h, "status")
	want(t, 0, h, "down")
	c.Delete(t)
	same(t, "up, ADD, DEL and down", before, h)
}

// TestForeign: what others made is neither taken nor removed.
func TestForeign(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h := l.Hosts[0]
	datapath := ""
	if l.Datapath == testnet.DatapathNetdev {
		datapath = " -- set bridge obr0 datapath_type=netdev"
	}
	h.Shell(t, "ovs-vsctl add-br obr0"+datapath)
	before := cnitest.MustLook(t, h)
	if r := want(t, 1, h, "up"); !strings.Contains(r.err, "not ours") {
		t.Errorf("%s%s", r.out, r.err)
	}
	want(t, 1, h, "status")
	want(t, 0, h, "down")
	same(t, "a refused up, and down", before, h)
	h.Shell(t, "ovs-vsctl del-br obr0")
	h.Shell(t, "ip route add 192.168.2.0/24 via "+l.Hosts[1].Addr4.String())
	if r := want(t, 1, h, "up"); !strings.Contains(r.err, "not ours") || !strings.Contains(r.err, "192.168.2.0/24") {
		t.Errorf("%s%s", r.out, r.err)
	}
	want(t, 0, h, "down")
	if out := h.Shell(t, "ip route show 192.168.2.0/24"); !strings.Contains(out, "via") {
		t.Error("down removed somebody's route")
	}
}

// TestBreak breaks one thing after the other; status shows each, and up mends it.
func TestBreak(t *testing.T) {
	l := lab(t, 3, cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true, "tunnel": cnitest.Conf{"bfd": true}}})
	h := l.Hosts[0]
	upAll(t, l)
	c := cnitest.Add(t, h, "ovsnet", "c1")
	tunnel := strings.TrimSpace(h.Shell(t, "ovs-vsctl --bare --columns=name find interface external_ids:ovs-gre.peer=host2"))
	port := strings.TrimSpace(h.Shell(t, "ovs-vsctl --bare --columns=name find interface external_ids:ovs-gre.ifname=eth0"))
	type report struct {
		Tunnels    []struct{ Peer, State, BFD string }
		Routes     []struct{ Destination, State string }
		Containers []struct{ ContainerID, State string }
		Drift      []string
	}
	r := decode[[]report](t, want(t, 0, h, "status", "--output", "json"))[0]
	if len(r.Tunnels) != 2 || len(r.Routes) != 4 || len(r.Containers) != 1 || r.Containers[0].State != "attached" || len(r.Drift) != 0 {
		t.Errorf("%+v", r)
	}
	testnet.Eventually(t, longest, func() error {
		r := decode[[]report](t, want(t, 0, h, "status", "--output", "json"))[0]
		for _, u := range r.Tunnels {
			if u.BFD != "up" || u.State != "up" {
				return fmt.Errorf("tunnel %+v", u)
			}
		}
		return nil
	})
	for _, b := range []struct{ do, see string }{
		{"ovs-vsctl del-port " + tunnel, "tunnel " + tunnel + " to host2"},
		{"ovs-vsctl set interface " + tunnel + " options:remote_ip=172.16.32.77", "172.16.32.77"},
		{"ovs-vsctl set port " + tunnel + " protected=false", "not protected"},
		{"ovs-vsctl set interface " + tunnel + " bfd:enable=false", "bfd is false, should be true"},
		{"ovs-vsctl del-br obr0-t", "OVS bridge obr0-t is missing"},
		{"ovs-vsctl set port " + port + " tag=4094", "tag is"},
		{"ovs-vsctl del-port " + port, "OVS port " + port + " is missing"},
		{"ip route del 192.168.2.0/24", "route 192.168.2.0/24 is missing"},
		{"ip route add 192.168.9.0/24 dev obr0-t proto 121 src 192.168.1.1", "192.168.9.0/24 is left over"},
		{"ip link set obr0-t down", "link obr0-t differs"},
		{"ip addr del 192.168.1.1/24 dev obr0", "address 192.168.1.1/24"},
		{"ip neigh del 172.16.32.101 dev obr0-t", "neighbour 172.16.32.101"},
		{"sysctl -qw net.ipv4.ip_forward=0", "sysctl net/ipv4/ip_forward"},
		{"nft delete table inet ovs-gre-ovsnet", "masquerade"},
		{"nft flush ruleset; iptables -P FORWARD DROP", "the policy DROP of chain FORWARD of table ip filter drops it"},
		{"iptables -F; iptables -P FORWARD ACCEPT; iptables -A FORWARD -j REJECT", "rule 1 of chain FORWARD of table ip filter (-j REJECT) drops it"},
		// What the version before has made, and what nobody needs.
		{"iptables -I FORWARD -i obr0 -m comment --comment ovs-gre:ovsnet -j ACCEPT", "accept rule ovs-gre:ovsnet is left over"},
	} {
		h.Shell(t, b.do)
		if r := want(t, 1, h, "status"); !strings.Contains(r.out, "DRIFT: ") || !strings.Contains(r.out, b.see) {
			t.Errorf("%s: no %q in\n%s", b.do, b.see, r.out)
		}
		r := want(t, 0, h, "up")
		if r.out == "" {
			t.Errorf("%s: up changed nothing", b.do)
		}
		if s := ctl(t, h, "status"); s.code != 0 {
			t.Errorf("%s: up did\n%sand left\n%s", b.do, r.out, s.out)
		}
	}
	ping(t, l.Hosts[1], c, false)
	if err := c.Call("check"); err != nil {
		t.Error(err)
	}
}

// TestPlanForward: on a host that drops what it forwards, the script accepts
// what the network forwards, once however often it runs.
func TestPlanForward(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h := l.Hosts[0]
	h.Shell(t, "iptables -P FORWARD DROP")
	h.WriteFile(t, "/run/plan.sh", want(t, 0, h, "plan").out)
	h.Shell(t, "sh /run/plan.sh; sh /run/plan.sh")
	want(t, 0, h, "status")
	if n := strings.Count(h.Shell(t, "iptables -S FORWARD"), "ACCEPT"); n != 3 {
		t.Errorf("%d accepts", n)
	}
	want(t, 0, h, "down")
	if out := h.Shell(t, "iptables -S FORWARD"); out != "-P FORWARD DROP\n" {
		t.Errorf("down left %s", out)
	}
}
