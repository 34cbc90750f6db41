package kernel

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestMTU finds the largest inner packet that every kind of tunnel carries
// whole, by bisection with MTUs out of the way, and holds it against the MTU
// that containers were given.
func TestMTU(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	fmt.Printf("| datapath | type | key | csum | underlay | largest inner packet | MTU given |\n|---|---|---|---|---|---|---|\n")
	for _, typ := range []string{"gre", "vxlan", "geneve"} {
		for _, key := range []bool{false, true} {
			for _, csum := range []bool{false, true} {
				for _, v6 := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s key=%t csum=%t v6=%t", typ, key, csum, v6), func(t *testing.T) {
						tunnel := cnitest.Conf{"type": typ, "csum": csum}
						if key {
							tunnel["key"] = 7
						}
						n := cnitest.Network{V6: v6, OVSGRE: cnitest.Conf{"tunnel": tunnel}, Subnets: func(i int) []string { return cnitest.Subnets(i)[:1] }}
						n.Install(t, l)
						if typ == "gre" && csum && l.Datapath == testnet.DatapathSystem {
							refused(t, l)
							return
						}
						cs := cnitest.AddAll(t, l, "ovsnet")
						given := cs[0].Result.Interfaces[2].Mtu
						loosen(t, cs)
						largest := bisect(t, cs[0], cs[1], given)
						fmt.Printf("| %s | %s | %t | %t | IPv%s | %d | %d |\n", l.Datapath, typ, key, csum, map[bool]string{false: "4", true: "6"}[v6], largest, given)
						if largest != given {
							t.Errorf("the tunnel carries %d, containers were given %d", largest, given)
						}
					})
				}
			}
		}
	}
}

// refused expects that ADD will not have GRE with a checksum: the kernel
// datapath sends it and drops what it receives.
func refused(t *testing.T, l *testnet.Lab) {
	t.Helper()
	c := cnitest.Container{Netns: l.Hosts[0].NewNetns(t, "refused"), Network: "ovsnet", IfName: "eth0"}
	err := c.Call("add")
	if err == nil || !strings.Contains(err.Error(), "tunnel.csum true") {
		t.Errorf("ADD: %v, want a refusal of tunnel.csum", err)
	}
	report(t, l, t.Name()+" is refused")
}

// loosen gives every link on the way an MTU that does not matter.
func loosen(t *testing.T, cs []*cnitest.Container) {
	t.Helper()
	for _, c := range cs {
		c.Run(t, "ip", "link", "set", "eth0", "mtu", "2000")
		c.Host.Run(t, "ip", "link", "set", c.Result.Interfaces[1].Name, "mtu", "2000")
		c.Host.Run(t, "ovs-vsctl", "--timeout=60", "set", "interface", "obr0", "mtu_request=2000", "--", "set", "interface", "obr0-t", "mtu_request=2000")
	}
}

// bisect returns the size of the largest IPv4 packet that arrives unfragmented.
// It looks 16 bytes to either side of what was given, and fails if the end lies
// beyond.
func bisect(t *testing.T, from, to *cnitest.Container, given int) int {
	t.Helper()
	const ipAndICMP = 28
	passes := func(size int) bool {
		wait := "0.4"
		if cnitest.Emulated() {
			wait = "1"
		}
		// Two tries: what must not pass does not, however often.
		out, _ := from.Output(context.Background(), "ping", "-n", "-q", "-M", "do", "-c", "2", "-i", "0.2", "-W", wait, "-s", fmt.Sprint(size-ipAndICMP), to.Addr(t, false).String())
		return strings.Contains(out, " received") && !strings.Contains(out, " 0 received")
	}
	if lost, err := cnitest.Unreached(from, to.Addr(t, false)); err != nil || len(lost) > 0 {
		t.Fatalf("no answer from %v %v", lost, err)
	}
	low, high := given-16, given+16
	if !passes(low) || passes(high) {
		t.Fatalf("%d does not pass, or %d does", low, high)
	}
	for high-low > 1 {
		if mid := (low + high) / 2; passes(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}
