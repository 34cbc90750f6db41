package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ways gives the namespace two links and routes of all kinds.
func ways(t *testing.T) context.Context {
	ctx := underlay(t)
	ip(t, "link set obr0 mtu 1300")
	ip(t, "link set obr0 up")
	ip(t, "addr add 10.0.0.1/24 dev obr0")
	ip(t, "-6 addr add fd00:99::1/64 dev eth0 nodad")
	// The kernel adds an IPv6 address in two steps.
	for !strings.HasPrefix(ip(t, "-6 route get fd00:99::1"), "local") && ctx.Err() == nil {
	}
	for _, route := range []string{
		"-4 route add 10.7.0.0/16 via 172.30.0.7 mtu 1450",
		"-6 route add fd00:7::/64 via fd00:99::7 mtu 1400",
		"-4 route add unreachable 10.8.0.0/16",
		"-4 route add blackhole 10.9.0.0/16",
		"-6 route add prohibit fd00:9::/64",
		"-4 route add 10.6.0.0/16 nexthop via 172.30.0.7 nexthop via 10.0.0.7",
		// Only what comes from the first address finds these.
		"-4 route add 10.5.0.0/16 via 172.30.0.7 table 100",
		"-4 route add 10.7.0.0/16 via 10.0.0.7 table 100",
		"-4 rule add from 172.30.0.1 lookup 100",
		"-4 route add 10.5.1.0/24 via 10.0.0.7",
		"-6 route add fd00:5::/64 via fd00:99::7 mtu 1350 table 100",
		"-6 rule add from fd00:99::1 lookup 100",
	} {
		ip(t, route)
	}
	return ctx
}

func TestUnderlayMTU(t *testing.T) {
	ctx := ways(t)
	for _, c := range []struct {
		self        string
		peers       []netip.Addr
		want        int
		unreachable []netip.Addr
	}{
		{"172.30.0.9", addresses("172.30.0.2", "172.30.0.3"), 1500, nil},
		{"172.30.0.9", addresses("172.30.0.2", "10.7.0.1"), 1450, nil},
		{"172.30.0.9", addresses("10.7.0.1", "10.0.0.2"), 1300, nil},
		{"172.30.0.9", addresses("10.6.0.1"), 1300, nil}, // by both links
		{"fd00:99::9", addresses("fd00:99::2"), 1500, nil},
		{"fd00:99::9", addresses("fd00:7::2", "fd00:99::2"), 1400, nil},
		{"10.0.0.1", nil, 1300, nil},
		{"172.30.0.1", nil, 1500, nil},
		{"192.0.2.1", nil, 1500, nil},
		{"127.0.0.1", nil, 1500, nil},
		// The rules by source address.
		{"172.30.0.1", addresses("10.7.0.1"), 1300, nil},
		{"172.30.0.1", addresses("10.5.0.1"), 1500, nil},
		{"172.30.0.1", addresses("10.5.1.1"), 1500, nil},
		{"10.0.0.1", addresses("10.5.1.1"), 1300, nil},
		{"10.0.0.1", addresses("10.5.0.1", "10.0.0.2"), 1300, addresses("10.5.0.1")},
		{"fd00:99::1", addresses("fd00:5::1"), 1350, nil},
		{"fd00:99::1", addresses("10.7.0.1"), 1450, nil}, // another family's
		{"fd00:99::9", addresses("fd00:5::1", "fd00:7::1"), 1400, addresses("fd00:5::1")},
		// One bars nobody else.
		{"10.0.0.1", addresses("172.30.0.255"), 1300, addresses("172.30.0.255")}, // a subnet's broadcast address
		{"10.0.0.1", addresses("10.8.0.1", "172.30.0.2", "10.9.0.1", "192.0.2.1", "fd00:8::1", "fd00:9::1"), 1500,
			addresses("10.8.0.1", "10.9.0.1", "192.0.2.1", "fd00:8::1", "fd00:9::1")},
		{"10.0.0.1", addresses("10.8.0.1"), 1300, addresses("10.8.0.1")},
	} {
		mtu, unreachable, err := UnderlayMTU(ctx, netip.MustParseAddr(c.self), c.peers)
		if err != nil || mtu != c.want || !slices.Equal(unreachable, c.unreachable) {
			t.Errorf("%s to %v: %d, %v, %v; want %d, %v", c.self, c.peers, mtu, unreachable, err, c.want, c.unreachable)
		}
	}
	peers := addresses("10.8.0.1", "192.0.2.1")
	_, unreachable, err := UnderlayMTU(ctx, netip.MustParseAddr("192.0.2.9"), peers)
	if !errors.Is(err, ErrNoRoute) || err.Error() != "no route to 10.8.0.1\nno route to 192.0.2.1" || !slices.Equal(unreachable, peers) {
		t.Errorf("no peer and no address of this host: %v, %v", unreachable, err)
	}
}

func TestUnrouted(t *testing.T) {
	ctx := ways(t)
	for self, want := range map[string][]netip.Addr{
		"172.30.0.1": addresses("10.8.0.1"),
		"10.0.0.1":   addresses("10.5.0.1", "10.8.0.1"),
		"192.0.2.1":  addresses("10.5.0.1", "10.8.0.1"), // none of this host's
		"fd00:99::1": addresses("10.5.0.1", "10.8.0.1"),
		"":           addresses("10.5.0.1", "10.8.0.1"),
	} {
		a, _ := netip.ParseAddr(self)
		have, err := Unrouted(ctx, a, addresses("10.5.0.1", "10.8.0.1", "172.30.0.2"))
		if err != nil || !slices.Equal(have, want) {
			t.Errorf("from %s: %v, %v; want %v", self, have, err, want)
		}
	}
}

// TestLookup: what is looked up here is what the kernel finds, as long as there
// are no rules.
func TestLookup(t *testing.T) {
	ctx := ways(t)
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		if _, ok, err := tableOf(ctx, f, nil); ok || err != nil {
			t.Errorf("family %d with a rule by source address: %t, %v, want it left to the kernel", f, ok, err)
		}
	}
	ip(t, "-4 rule del from 172.30.0.1 lookup 100")
	ip(t, "-6 rule del from fd00:99::1 lookup 100")
	ip(t, "-4 route add 10.7.7.0/24 via 10.0.0.7 metric 9")
	ip(t, "-4 route add 10.7.7.0/24 via 172.30.0.7 metric 5")
	ip(t, "-4 route add throw 10.10.0.0/16")
	look := func(defaults bool) {
		t.Helper()
		for f, to := range map[int][]netip.Addr{
			unix.AF_INET: addresses("172.30.0.2", "172.30.0.1", "172.30.0.255", "10.7.0.1", "10.7.7.1", "10.0.0.1", "10.0.0.2", "10.6.0.1", "10.5.1.1",
				"10.5.0.1", "10.8.0.1", "10.9.0.1", "10.10.0.1", "192.0.2.1", "127.0.0.1"),
			unix.AF_INET6: addresses("fd00:99::2", "fd00:99::1", "fd00:7::1", "fd00:9::1", "fd00:5::1", "2001:db8::1", "::1"),
		} {
			table, ok, err := tableOf(ctx, f, to)
			if !ok || err != nil {
				t.Fatalf("family %d: %t, %v", f, ok, err)
			}
			for _, a := range to {
				here, err := table.routeTo(a)
				kernel, asked := withConn(func(c *conn) (*netlink.Route, error) { return c.routeTo(ctx, a, netip.Addr{}) })
				same := errors.Is(err, ErrNoRoute) == errors.Is(asked, ErrNoRoute)
				if same && here != nil && kernel != nil {
					h, k := hops(here)[0], hops(kernel)[0]
					same = h.LinkIndex == k.LinkIndex && via(h) == via(k) && here.MTU == kernel.MTU && here.Type == kernel.Type
				}
				if !same {
					t.Errorf("%s, defaults %t: %+v, %v; the kernel: %+v, %v", a, defaults, here, err, kernel, asked)
				}
			}
		}
	}
	look(false)
	ip(t, "-4 route add default via 172.30.0.8")
	ip(t, "-6 route add default via fd00:99::8")
	look(true)
	for i := range fewRoutes { // of more, those that lead to none are left out
		ip(t, fmt.Sprintf("-4 route add 198.18.%d.0/24 via 172.30.0.8", i))
		ip(t, fmt.Sprintf("-6 route add fd00:18:%d::/48 via fd00:99::8", i))
	}
	look(true)
	many := make([]netip.Addr, 2*manyLookups)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, byte(i), 0, 1})
	}
	few, unreached, err := UnderlayMTU(ctx, netip.MustParseAddr("172.30.0.1"), many)
	if err != nil || few != 1300 || !slices.Equal(unreached, addresses("10.8.0.1", "10.9.0.1", "10.10.0.1")) {
		t.Errorf("%d, %v, %v", few, unreached, err)
	}
}

func tableOf(ctx context.Context, family int, to []netip.Addr) (t routingTable, ok bool, err error) {
	_, err = withConn(func(c *conn) (_ any, err error) {
		t, ok, err = c.routingTable(ctx, family, to)
		return nil, err
	})
	return t, ok, err
}
