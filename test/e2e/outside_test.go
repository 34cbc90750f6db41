package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestOutside pings the world from a container and looks at who it seems to be.
func TestOutside(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	// What is not masqueraded would not find its way back.
	const bare4, bare6 = "198.51.100.7", "fd00:51::7"
	l.Underlay.Shell(t, "ip address add "+bare4+"/32 dev lo; ip address add "+bare6+"/128 dev lo")
	cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true, "noMasqueradeCIDRs": []string{"198.51.100.0/24", "fd00:51::/64"}}}.Install(t, l)
	cs := one(t, l, "ovsnet")
	for _, v6 := range families {
		t.Run(familyName(v6), func(t *testing.T) {
			c, h := cs[0], cs[0].Host
			world, bare := l.Underlay.Addr4.String(), bare4
			if v6 {
				world, bare = l.Underlay.Addr6.String(), bare6
			}
			lines := heard(t, l.Underlay, "underlay", world, func() { reach(t, "container 1 to the world", c, underlayAddr(l.Underlay, v6)) })
			want := fmt.Sprintf("%s > %s", underlayAddr(h, v6), world)
			if seen(lines, want) != 1 {
				t.Errorf("want an echo request %s in the world, there came:\n%s", want, strings.Join(lines, "\n"))
			}
			lines = heard(t, l.Underlay, "underlay", bare, func() {
				_, _ = c.Output(context.Background(), "ping", "-c1", "-W0.1", bare)
			})
			want = fmt.Sprintf("%s > %s", c.Addr(t, v6), bare)
			if seen(lines, want) != 1 {
				t.Errorf("want an echo request %s, as noMasqueradeCIDRs says, in the world, there came:\n%s", want, strings.Join(lines, "\n"))
			}
			to := cs[1]
			lines = heard(t, to, "eth0", to.Addr(t, v6).String(), func() { reach(t, "container 1 to container 2", c, to.Addr(t, v6)) })
			want = fmt.Sprintf("%s > %s", c.Addr(t, v6), to.Addr(t, v6))
			if seen(lines, want) != 1 {
				t.Errorf("want an echo request %s, not masqueraded, in container 2, there came:\n%s", want, strings.Join(lines, "\n"))
			}
		})
	}
}

// heard returns the echo requests to an address that come to a link meanwhile,
// at least one.
func heard(t *testing.T, at testnet.Runner, link, addr string, meanwhile func()) []string {
	t.Helper()
	echo := "icmp and icmp[0] == 8"
	if strings.Contains(addr, ":") {
		echo = "icmp6 and ip6[40] == 128"
	}
	c := testnet.CaptureIn(t, at, link, "dst host "+addr+" and "+echo)
	meanwhile()
	testnet.Eventually(t, 30*time.Second, func() error {
		if len(c.Lines()) == 0 {
			return fmt.Errorf("no echo request to %s has come", addr)
		}
		return nil
	})
	return c.Stop(t)
}
