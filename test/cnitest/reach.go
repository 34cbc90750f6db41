package cnitest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

// Emulated reports whether this is the VM of test/kernel, where everything
// takes longer and nothing else is different.
func Emulated() bool { return os.Getenv("OVSGRE_EMULATED") != "" }

// Unreached pings addresses one after the other in one shell, and returns those
// that do not answer.
func Unreached(from testnet.Runner, addrs ...netip.Addr) ([]string, error) {
	wait := "5"
	if Emulated() {
		wait = "10"
	}
	var script strings.Builder
	for _, a := range addrs {
		// A second try: ovs-vswitchd may still drop what came before a port was there.
		fmt.Fprintf(&script, "ping -n -q -c1 -W%s %s >/dev/null || ping -n -q -c1 -W%[1]s %[2]s >/dev/null || echo %[2]s\n", wait, a)
	}
	out, err := from.Output(context.Background(), "sh", "-c", script.String()+"true")
	return strings.Fields(out), err
}

// Reach pings and wants an answer. A busy machine may take its time, and
// ovs-vswitchd may for some of it still drop what came from a peer before the
// peer's tunnel was there: its flows are looked at again after a change, not
// in the same moment.
func Reach(t testing.TB, what string, from testnet.Runner, to netip.Addr) {
	t.Helper()
	var err error
	for began := time.Now(); time.Since(began) < 10*time.Second; {
		if err = testnet.Ping(context.Background(), from, to, testnet.PingOptions{Wait: 3 * time.Second}); err == nil {
			return
		}
	}
	t.Errorf("%s: %v", what, err)
}

// Seen counts the lines that have all of the texts.
func Seen(lines []string, texts ...string) int {
	n := 0
line:
	for _, l := range lines {
		for _, text := range texts {
			if !strings.Contains(l, text) {
				continue line
			}
		}
		n++
	}
	return n
}

// AddAll attaches a container on each host, at once.
func AddAll(t testing.TB, l *testnet.Lab, network string) []*Container {
	t.Helper()
	cs := make([]*Container, len(l.Hosts))
	errs := make([]error, len(l.Hosts))
	var wg sync.WaitGroup
	for i, h := range l.Hosts {
		cs[i] = &Container{Netns: h.NewNetns(t, fmt.Sprintf("c%d", i+1)), Network: network, IfName: "eth0"}
		wg.Go(func() { errs[i] = cs[i].Call("add") })
	}
	wg.Wait()
	t.Cleanup(func() { DelAll(t, cs) })
	for i, err := range errs {
		if err != nil {
			t.Fatalf("%s: cnitool add: %v", l.Hosts[i].Name, err)
		}
	}
	return cs
}

// DelAll detaches containers, at once, and deletes their namespaces.
func DelAll(t testing.TB, cs []*Container) {
	t.Helper()
	var wg sync.WaitGroup
	for _, c := range cs {
		wg.Go(func() {
			if err := c.Call("del"); err != nil {
				t.Errorf("%s: cnitool del: %v", c.Host.Name, err)
			}
			_, _ = c.Host.Output(context.Background(), "ip", "netns", "delete", c.Name)
		})
	}
	wg.Wait()
}

// Addrs are all addresses of a container.
func (c *Container) Addrs() []netip.Addr {
	var list []netip.Addr
	for _, ip := range c.Result.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			list = append(list, a.Unmap())
		}
	}
	return list
}

// AllReach pings all containers from all others and from all hosts, over all
// their addresses, and tells the test who does not answer.
func AllReach(t testing.TB, cs []*Container) {
	t.Helper()
	var wg sync.WaitGroup
	for _, from := range cs {
		var targets []netip.Addr
		for _, to := range cs {
			if to != from {
				targets = append(targets, to.Addrs()...)
			}
		}
		for name, r := range map[string]testnet.Runner{from.Name: from, from.Host.Name: from.Host} {
			wg.Go(func() {
				lost, err := Unreached(r, targets...)
				if err != nil || len(lost) > 0 {
					t.Errorf("from %s: no answer from %v %v", name, lost, err)
				}
			})
		}
	}
	wg.Wait()
}
