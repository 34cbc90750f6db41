package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// inClear is tcpdump's filter for what IPsec must hide.
const inClear = "net 192.168.0.0/16 or ip proto 47"

// TestIPsec has OVS's IPsec daemon encrypt GRE, and wants nothing in clear before it,
// without it, and after it. test/kernel/ipsec runs it.
func TestIPsec(t *testing.T) {
	packages := os.Getenv("OVSGRE_IPSEC")
	if packages == "" {
		return // test/kernel/ipsec has what this needs
	}
	if err := cnitest.UnpackIPsec(t.Context(), packages); err != nil {
		t.Fatal(err)
	}
	l := lab(t, 2)
	n := cnitest.Network{Subnets: func(i int) []string { return cnitest.Subnets(i)[:1] },
		OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"type": "gre", "ports": "peer", "options": cnitest.Conf{"psk": cnitest.Conf{"file": cnitest.PSKFile}}}}}
	n.Install(t, l)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range l.Hosts {
		must(cnitest.PrepareIPsec(t.Context(), h, "octarine is the eighth colour"))
	}
	wire := l.Capture(t, inClear)
	for _, h := range l.Hosts {
		must(cnitest.StartIPsec(t.Context(), h))
	}
	begun := time.Now()
	for _, h := range l.Hosts {
		if r := cnitest.Ctl(t, h, "up"); r.Code != 0 {
			t.Fatalf("up: %s%s", r.Out, r.Err)
		}
	}
	up := time.Since(begun)
	gateway := cnitest.Subnets(1)[0]
	gateway = gateway[:strings.LastIndex(gateway, ".")] + ".1"
	for {
		if _, err := l.Hosts[0].Output(t.Context(), "ping", "-n", "-q", "-c", "1", "-W", "1", "-I", "192.168.1.1", gateway); err == nil {
			break
		}
		if time.Since(begun) > 2*time.Minute {
			for _, h := range l.Hosts {
				t.Log(h.Shell(t, "ip xfrm policy; ip xfrm state; ipsec statusall; cat /etc/ipsec.conf; cat /var/log/openvswitch/ovs-monitor-ipsec.log; nft list ruleset; ovs-vsctl show"))
			}
			t.Fatal("no answer")
		}
	}
	fmt.Printf("kernel: ipsec: up took %v, encrypted after %v\n", up.Round(10*time.Millisecond), time.Since(begun).Round(10*time.Millisecond))
	cs := cnitest.AddAll(t, l, "ovsnet")
	esp := l.Capture(t, "ip proto 50 or udp port 4500")
	cnitest.AllReach(t, cs)
	fmt.Printf("kernel: ipsec: %d ESP packets\n", len(esp.Stop(t)))
	for _, c := range cs {
		if err := c.Call("check"); err != nil {
			t.Errorf("CHECK: %v", err)
		}
	}
	doctor := func(want string) {
		t.Helper()
		if r := cnitest.Ctl(t, l.Hosts[0], "doctor", "-v"); !strings.Contains(r.Out, want) {
			t.Errorf("doctor does not say %q: %s", want, r.Out)
		}
	}
	doctor("OVS's IPsec daemon and an IKE daemon run")
	given := cs[0].Result.Interfaces[2].Mtu
	loosen(t, cs)
	fmt.Printf("kernel: ipsec: MTU %d, the largest that passes is %d\n", given, bisect(t, cs[0], cs[1], given))

	// The IKE daemon ends.
	must(cnitest.StopIPsec(t.Context(), l.Hosts[0]))
	doctor("ovs-monitor-ipsec does not run")
	for i := range cs {
		if lost, err := cnitest.Unreached(cs[i], cs[1-i].Addr(t, false)); err != nil || len(lost) == 0 {
			t.Errorf("without an IKE daemon %s reaches the other: %v %v", cs[i].Name, lost, err)
		}
	}
	if lines := wire.Stop(t); len(lines) > 0 {
		t.Errorf("%d packets in clear, the first: %s", len(lines), lines[0])
	}
	// Without the guard OVS sends in clear, so that the captures prove something.
	wire = l.Capture(t, inClear)
	inside := testnet.CaptureIn(t, cs[1], "eth0", "icmp")
	l.Hosts[0].Shell(t, "nft delete table inet ovs-gre-ovsnet/guard")
	if lost, err := cnitest.Unreached(cs[0], cs[1].Addr(t, false)); err != nil || len(lost) == 0 {
		t.Errorf("without the guard of the one host the other takes clear packets: %v %v", lost, err)
	}
	if len(wire.Stop(t)) == 0 {
		t.Error("without a guard nothing is seen in clear: the captures prove nothing")
	}
	if lines := inside.Stop(t); len(lines) > 0 {
		t.Errorf("what came in clear was taken: %s", lines[0])
	}
	if err := cs[0].Call("check"); err == nil || !strings.Contains(err.Error(), "guard against clear packets") {
		t.Errorf("CHECK without the guard: %v", err)
	}
	cnitest.Ctl(t, l.Hosts[0], "up")
	must(cnitest.StartIPsec(t.Context(), l.Hosts[0]))
	wire = l.Capture(t, inClear)
	cnitest.AllReach(t, cs)
	if lines := wire.Stop(t); len(lines) > 0 {
		t.Errorf("%d packets in clear, the first: %s", len(lines), lines[0])
	}
	report(t, l, "IPsec under GRE")
}

// TestIPsecFromClear goes from clear GRE to IPsec with containers attached that talk all
// the time: from the end of a host's up nothing in clear leaves it, and from the end
// of the last one's nothing is on the wire. test/kernel/ipsec runs it.
func TestIPsecFromClear(t *testing.T) {
	packages := os.Getenv("OVSGRE_IPSEC")
	if packages == "" {
		return // test/kernel/ipsec has what this needs
	}
	if err := cnitest.UnpackIPsec(t.Context(), packages); err != nil {
		t.Fatal(err)
	}
	l := lab(t, 2)
	clear := cnitest.Network{Subnets: func(i int) []string { return cnitest.Subnets(i)[:1] }}
	clear.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	for _, h := range l.Hosts {
		if err := errors.Join(cnitest.PrepareIPsec(t.Context(), h, "octarine is the eighth colour"), cnitest.StartIPsec(t.Context(), h)); err != nil {
			t.Fatal(err)
		}
	}
	secret := clear
	secret.OVSGRE = cnitest.Conf{"tunnel": cnitest.Conf{"options": cnitest.Conf{"psk": cnitest.Conf{"file": cnitest.PSKFile}}}}
	var wires []*testnet.Capture
	before := l.Capture(t, inClear)
	sent, answered := cnitest.During(t, cs[0], cs[1], patience(), func() {
		secret.Install(t, l)
		for i, h := range l.Hosts {
			if r := cnitest.Ctl(t, h, "up"); r.Code != 0 {
				t.Fatalf("%s: up: %s%s", h.Name, r.Out, r.Err)
			}
			filter := fmt.Sprintf("(%s) and (src host %s or src net %s)", inClear, h.Addr4, cnitest.Subnets(i)[0])
			if i == len(l.Hosts)-1 {
				filter = inClear
			}
			wires = append(wires, l.Capture(t, filter))
		}
	})
	fmt.Printf("kernel: ipsec: from clear GRE, of %d pings, one every 50 ms, %d were answered\n", sent, answered)
	cnitest.AllReach(t, cs)
	for i, w := range wires {
		if lines := w.Stop(t); len(lines) > 0 {
			t.Errorf("after up of %s %d packets in clear, the first: %s", l.Hosts[i].Name, len(lines), lines[0])
		}
	}
	if len(before.Stop(t)) == 0 {
		t.Error("nothing in clear was seen before: the captures prove nothing")
	}
	for _, c := range cs { // who is attached keeps the MTU that it has, which is too large now
		if err := c.Call("check"); err == nil || !strings.Contains(err.Error(), "should be at most 1425") {
			t.Errorf("%s: CHECK: %v", c.Host.Name, err)
		}
		c.Run(t, "ip", "link", "set", "eth0", "mtu", "1425")
		if err := c.Call("check"); err != nil {
			t.Errorf("%s: CHECK: %v", c.Host.Name, err)
		}
	}
	report(t, l, "from clear GRE to IPsec, containers attached")
}
