package chains

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// A dual is a container with eth0 on blue and eth1 on red.
type dual struct {
	*testnet.Netns
	first, second *cnitest.Container
}

func addDual(t *testing.T, h *testnet.Host, name string) dual {
	t.Helper()
	ns := h.NewNetns(t, name)
	return dual{ns, attach(t, ns, "blue", "eth0"), attach(t, ns, "red", "eth1")}
}

// TestSBR gives containers a second interface, on a network with sbr: what has
// that interface's address leaves by it, everything else by the first.
func TestSBR(t *testing.T) {
	t.Parallel()
	for _, segment := range []string{"host", "mesh", "container"} {
		t.Run(segment, func(t *testing.T) {
			t.Parallel()
			blue, red := networks("")
			blue.Chain, red.Chain = nil, []cnitest.Conf{{"type": "sbr"}}
			red.OVSGRE["segment"], red.OVSGRE["isDefaultGateway"] = segment, false
			l := lab(t, blue)
			red.Install(t, l)
			h := l.Hosts[0]
			c, far := addDual(t, h, "c"), addDual(t, l.Hosts[1], "far")
			for _, v6 := range []bool{false, true} {
				byEth1(t, c, far, v6)
				reach(t, "the first interface, as ever", far, c.first.Addr(t, v6))
				// The peer host is on the way, so its gateway address on red is asked.
				reach(t, "the second interface, from the peer host", l.Hosts[1], c.second.Addr(t, v6))
			}
			for _, a := range []*cnitest.Container{c.first, c.second} {
				err := a.Call("check")
				// sbr takes a /32's routes by the gateway away for good: its own
				// default route does instead. docs/runtimes.md says so.
				if dropped := a == c.second && segment == "container"; dropped != (err != nil) {
					t.Errorf("CHECK of %s: %v", a.Network, err)
				}
			}
			if err := c.second.Call("del"); err != nil {
				t.Error(err)
			}
			if left := c.Shell(t, "ip rule; ip -6 rule"); strings.Contains(left, "10.9.1.") || strings.Contains(left, "fd09:") {
				t.Errorf("rules after DEL:\n%s", left)
			}
			reach(t, "the first interface, when the second is gone", far, c.first.Addr(t, false))
		})
	}
}

// byEth1 wants a container to use eth1 for eth1's address, to the peer's
// container and to the world, and eth0 for its own.
func byEth1(t *testing.T, c, far dual, v6 bool) {
	t.Helper()
	src, dst, world := c.second.Addr(t, v6), far.second.Addr(t, v6), "198.51.100.1"
	if v6 {
		world = "2001:db8::1"
	}
	for _, want := range []struct {
		from netip.Addr
		dev  string
	}{{src, "dev eth1 table 10"}, {c.first.Addr(t, v6), "dev eth0 "}} {
		if route := c.Shell(t, fmt.Sprintf("ip route get %s from %s", world, want.from)); !strings.Contains(route, want.dev) {
			t.Errorf("to the world from %s: want %q in %s", want.from, want.dev, route)
		}
	}
	testnet.Eventually(t, longest, func() error {
		_, err := c.Output(t.Context(), "ping", "-n", "-c", "1", "-W", "5", "-I", src.String(), dst.String())
		return err
	})
}
