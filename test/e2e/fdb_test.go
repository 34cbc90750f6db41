package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// fine wants ovs-grectl status to find all as it should be.
func fine(h *testnet.Host) error {
	_, err := h.Output(context.Background(), "/opt/cni/bin/ovs-grectl", "status")
	return err
}

// longest bounds a wait for what is a matter of seconds.
const longest = time.Minute

// TestFlood sends to a container that never answers. Of that nothing goes to the
// peers that it is not on, and what goes there without static FDB entries shows
// that it would.
func TestFlood(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	cnitest.Network{}.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	for _, h := range l.Hosts { // what a transit link sends by itself teaches OVS
		h.Shell(t, `echo 0 >/proc/sys/net/ipv6/conf/obr0-t/router_solicitations; iptables -w -A OUTPUT -o obr0-t -j DROP; ip6tables -w -A OUTPUT -o obr0-t -j DROP
			ip neigh show dev obr0-t | grep managed | while read a rest; do ip neigh del $a dev obr0-t; done`)
	}
	to := cs[1].Addr(t, false)
	cs[1].Shell(t, "ip route del default") // it never answers
	const datagrams = 50
	copies := func() int {
		t.Helper()
		wire := l.Capture(t, fmt.Sprintf("proto gre and dst host %s", l.Hosts[2].Addr4))
		got := testnet.CaptureIn(t, cs[1].Netns, "eth0", fmt.Sprintf("udp and dst host %s", to))
		cs[0].Run(t, "bash", "-c", fmt.Sprintf("for i in {1..%d}; do echo x >/dev/udp/%s/9; sleep 0.02; done", datagrams, to))
		if n := len(got.Stop(t)); n < datagrams*9/10 {
			t.Errorf("the receiver got %d of %d datagrams: the test proves nothing", n, datagrams)
		}
		n := 0
		for _, line := range wire.Stop(t) {
			if strings.Contains(line, " > "+to.String()+".9: UDP") {
				n++
			}
		}
		return n
	}
	h := l.Hosts[0]
	mac := config.MAC(l.Hosts[1].Addr4)
	flush := func() { h.Shell(t, "ovs-appctl --timeout=20 fdb/flush obr0-t") }
	flush()
	with := copies()
	h.Shell(t, "ovs-appctl --timeout=20 fdb/del obr0-t 0 "+mac)
	flush()
	without := copies()
	t.Logf("%d datagrams to a silent peer; copies at another: %d, without static entries %d", datagrams, with, without)
	if with != 0 || without < datagrams*9/10 {
		t.Errorf("copies at another peer: %d with static entries, %d without", with, without)
	}
	// What is missing harms no container, and the next one brings it.
	if err := cs[0].Call("check"); err != nil {
		t.Error(err)
	}
	cnitest.Add(t, h, "ovsnet", "more")
	if out := h.Run(t, "ovs-appctl", "--timeout=20", "fdb/show", "obr0-t"); !strings.Contains(out, mac+"  static") {
		t.Errorf("after ADD: %s", out)
	}
}

// TestFloodSettles: when ovs-vswitchd was restarted and nothing of ours runs, the
// answers to the kernel's own questions end within seconds what would go on as
// long as the peer is silent. The entries by which packets go do not depend on
// answers.
func TestFloodSettles(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	cnitest.Network{}.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	for _, h := range l.Hosts {
		h.Shell(t, `echo 0 >/proc/sys/net/ipv6/conf/obr0-t/router_solicitations; ip6tables -w -A OUTPUT -o obr0-t -j DROP
			echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore`) // as kube-proxy sets it
	}
	to := cs[1].Addr(t, false)
	cs[1].Shell(t, "ip route del default")
	h := l.Hosts[0]
	if out := h.Run(t, "ip", "neigh", "show", "192.168.2.1", "dev", "obr0-t"); !strings.Contains(out, "managed") {
		if _, err := h.Output(context.Background(), "test", "-e", "/proc/sys/net/ipv4/neigh/lo/interval_probe_time_ms"); err != nil {
			t.Logf("this kernel cannot do it")
			return
		}
		t.Fatalf("the kernel does not ask for 192.168.2.1: %q", out)
	}
	must(t, h.StopVswitchd(context.Background()))
	must(t, h.StartVswitchd(context.Background()))
	wire := l.Capture(t, fmt.Sprintf("proto gre and dst host %s", l.Hosts[2].Addr4))
	send := func(n int) {
		t.Helper()
		cs[0].Run(t, "bash", "-c", fmt.Sprintf("for i in {1..%d}; do echo x >/dev/udp/%s/9; sleep 0.05; done", n, to))
	}
	testnet.Eventually(t, longest, func() error {
		send(1)
		if out := h.Run(t, "ovs-appctl", "--timeout=20", "fdb/show", "obr0-t"); !strings.Contains(out, config.MAC(l.Hosts[1].Addr4)) {
			return fmt.Errorf("OVS has not learned the peer's address:\n%s", out)
		}
		return nil
	})
	stray := func(lines []string) (n int) {
		for _, line := range lines {
			if strings.Contains(line, " > "+to.String()+".9: UDP") {
				n++
			}
		}
		return n
	}
	before := stray(wire.Stop(t))
	wire = l.Capture(t, fmt.Sprintf("proto gre and dst host %s", l.Hosts[2].Addr4))
	send(100)
	after := stray(wire.Stop(t))
	t.Logf("after a restart of ovs-vswitchd %d copies at another peer, then %d of 100", before, after)
	if after != 0 {
		t.Errorf("still %d of 100 go to another peer", after)
	}
	must(t, cs[0].Call("check"))
}

// TestGatewayMAC: a container that sends with the gateway's MAC address does
// not draw the others' packets. Without the static FDB entry it would.
func TestGatewayMAC(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	cnitest.Network{}.Install(t, l)
	h := l.Hosts[0]
	victim, attacker := cnitest.Add(t, h, "ovsnet", "victim"), cnitest.Add(t, h, "ovsnet", "attacker")
	gateway := netip.MustParseAddr("192.168.1.1")
	mac := config.MAC(gateway)
	attacker.Shell(t, "ip link set eth0 address "+mac+"; ip neigh replace 192.168.1.250 lladdr 0a:58:c0:a8:01:fa dev eth0 nud permanent")
	answered := func() int {
		t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		cmd := attacker.Command(ctx, "ping", "-n", "-q", "-i", "0.005", "192.168.1.250")
		must(t, cmd.Start())
		sent := testnet.CaptureIn(t, victim.Netns, "eth0", "ether src "+mac+" and dst host 192.168.1.250")
		out, _ := victim.Output(context.Background(), "ping", "-n", "-q", "-i", "0.02", "-c", "100", "-W", "1", gateway.String())
		cancel()
		_ = cmd.Wait()
		if n := len(sent.Stop(t)); n < 20 {
			t.Errorf("the victim saw %d frames of the attack: the test proves nothing", n)
		}
		var n int
		_, rest, _ := strings.Cut(out, "100 packets transmitted, ")
		_, _ = fmt.Sscan(rest, &n)
		return n
	}
	with := answered()
	h.Shell(t, "ovs-appctl --timeout=20 fdb/del obr0 0 "+mac)
	without := answered()
	for range 5 { // OVS moves a MAC address with a flow's first packet, or when it looks at its flows again
		if without <= 50 {
			break
		}
		without = answered()
	}
	t.Logf("of 100 pings to the gateway under attack %d were answered, without the static entry %d", with, without)
	if with < 95 || without > 50 {
		t.Errorf("of 100 pings %d were answered, without the static entry %d", with, without)
	}
}

// TestBridgeMistreated does to our bridges what stops traffic: CHECK tells of it,
// and the next ADD mends it.
func TestBridgeMistreated(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	cnitest.Network{}.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	cnitest.AllReach(t, cs)
	h := l.Hosts[0]
	for i, what := range []string{
		"ovs-ofctl del-flows obr0",
		"ovs-ofctl del-flows obr0-t",
		"ovs-ofctl add-flow obr0-t priority=9,actions=drop",
		"ovs-vsctl set bridge obr0 fail_mode=secure; ovs-ofctl del-flows obr0",
		"ovs-vsctl set bridge obr0-t fail_mode=secure",
		"ovs-vsctl set-controller obr0 tcp:127.0.0.1:6653",
		"ovs-vsctl set-controller obr0-t ptcp:6653:127.0.0.1 -- set bridge obr0-t fail_mode=secure",
		"ovs-vsctl set bridge obr0 stp_enable=true",
		"ovs-vsctl set bridge obr0-t rstp_enable=true",
		"ovs-vsctl set port obr0 tag=7",
	} {
		t.Run(what, func(t *testing.T) {
			h.Shell(t, what)
			if err := cs[0].Call("check"); err == nil || !strings.Contains(err.Error(), "OVS bridge obr0") {
				t.Errorf("CHECK: %v", err)
			}
			c := cnitest.Add(t, h, "ovsnet", fmt.Sprintf("more%d", i))
			must(t, fine(h))
			must(t, cs[0].Call("check"))
			cnitest.AllReach(t, cs)
			must(t, c.Call("del"))
		})
	}
}
