package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// families are what a test runs for: containers' IPv4 and IPv6.
var families = []bool{false, true}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

func reach(t *testing.T, what string, from testnet.Runner, to netip.Addr) {
	t.Helper()
	cnitest.Reach(t, what, from, to)
}

func seen(lines []string, texts ...string) int { return cnitest.Seen(lines, texts...) }

// gre is tcpdump's filter for what the tunnels send, over either underlay.
const gre = "ip proto 47 or ip6 proto 47"

// TestTraffic pings all pairs of containers and hosts, transfers data, and
// looks at the underlay, which is IPv4 or IPv6.
func TestTraffic(t *testing.T) {
	for _, underlay6 := range families {
		t.Run("over "+familyName(underlay6), func(t *testing.T) {
			t.Parallel()
			l := lab(t, 3)
			cnitest.Network{V6: underlay6, OVSGRE: cnitest.Conf{"ipMasq": true}}.Install(t, l)
			cs := one(t, l, "ovsnet")
			for _, v6 := range families {
				t.Run(familyName(v6), func(t *testing.T) { pairs(t, cs, v6) })
			}
			t.Run("tunnel", func(t *testing.T) { tunnelled(t, l, cs, underlay6) })
			t.Run("tcp", func(t *testing.T) { transfer(t, cs[0], cs[1]) })
			for _, c := range cs {
				if err := c.Call("check"); err != nil {
					t.Errorf("CHECK on %s: %v", c.Host.Name, err)
				}
			}
		})
	}
}

// pairs pings all that can be pinged.
func pairs(t *testing.T, cs []*cnitest.Container, v6 bool) {
	for i, from := range cs {
		for j, to := range cs {
			reach(t, fmt.Sprintf("container %d to container %d", i+1, j+1), from, to.Addr(t, v6))
			reach(t, fmt.Sprintf("host %d to container %d", i+1, j+1), from.Host, to.Addr(t, v6))
			reach(t, fmt.Sprintf("container %d to gateway %d", i+1, j+1), from, gateway(j, v6))
			reach(t, fmt.Sprintf("container %d to host %d", i+1, j+1), from, underlayAddr(to.Host, v6))
		}
	}
}

// tunnelled looks at the underlay while one container pings another.
func tunnelled(t *testing.T, l *testnet.Lab, cs []*cnitest.Container, underlay6 bool) {
	from, to := cs[0], cs[2]
	for _, v6 := range families {
		c := l.Capture(t, gre+" or icmp or (icmp6 and (ip6[40] == 128 or ip6[40] == 129))")
		reach(t, "container 1 to container 3", from, to.Addr(t, v6))
		lines := c.Stop(t)
		outer := fmt.Sprintf("%s > %s", underlayAddr(from.Host, underlay6), underlayAddr(to.Host, underlay6))
		inner := fmt.Sprintf("%s > %s", from.Addr(t, v6), to.Addr(t, v6))
		if seen(lines, "GREv0", outer, inner, "echo request") != 1 {
			t.Errorf("want one GRE packet %s around %s, on the underlay are:\n%s", outer, inner, strings.Join(lines, "\n"))
		}
		if bare := seen(lines) - seen(lines, "GREv0"); bare > 0 {
			t.Errorf("%d echo packets are not in a tunnel:\n%s", bare, strings.Join(lines, "\n"))
		}
	}
}

// transfer sends some megabytes from one container to another, each way.
func transfer(t *testing.T, a, b *cnitest.Container) {
	const size = 4 << 20
	for _, v6 := range families {
		for _, pair := range [][2]*cnitest.Container{{a, b}, {b, a}} {
			from, to := pair[0], pair[1]
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			addr := netip.AddrPortFrom(to.Addr(t, v6), 5001).String()
			server, listening := program(ctx, to, "receive", addr), make(chan struct{})
			var got, said bytes.Buffer
			server.Stdout = &tripwire{to: &got, first: listening}
			server.Stderr = &said
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Wait() }()
			var want string
			var errs []error
			select {
			case <-listening:
				out, err := program(ctx, from, "send", addr, strconv.Itoa(size)).Output()
				want, errs = string(out), append(errs, err, <-ended)
			case err := <-ended:
				errs = append(errs, fmt.Errorf("the server ended: %w", err))
			}
			cancel()
			if err := errors.Join(errs...); err != nil {
				t.Errorf("%s to %s by %s: %v: %s", from.Host.Name, to.Host.Name, familyName(v6), err, said.String())
			} else if got := strings.TrimPrefix(got.String(), "listening\n"); got != want || want == "" {
				t.Errorf("%s to %s by %s: sent the checksum %q, received %q", from.Host.Name, to.Host.Name, familyName(v6), want, got)
			}
		}
	}
}

// A tripwire closes first at the first write.
type tripwire struct {
	to    *bytes.Buffer
	first chan struct{}
}

func (w *tripwire) Write(b []byte) (int, error) {
	if w.to.Len() == 0 {
		defer close(w.first)
	}
	return w.to.Write(b)
}
