package e2e

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestMTU looks whether a packet of exactly the container's MTU reaches a peer
// and one byte more does not, and how large the MTU is.
func TestMTU(t *testing.T) {
	t.Parallel()
	type config struct {
		name   string
		v6     bool
		tunnel cnitest.Conf
		mtu    int // configured
		want   int
	}
	for _, u := range []struct {
		mtu     int
		configs []config
	}{
		{1500, []config{
			{name: "gre", want: 1462},
			{name: "gre key", tunnel: cnitest.Conf{"key": 7}, want: 1458},
			{name: "gre csum", tunnel: cnitest.Conf{"csum": true}, want: 1458},
			{name: "gre key csum", tunnel: cnitest.Conf{"key": 7, "csum": true}, want: 1454},
			{name: "gre over IPv6", v6: true, want: 1442},
			{name: "gre key over IPv6", v6: true, tunnel: cnitest.Conf{"key": 7}, want: 1438},
			{name: "explicit", mtu: 1400, want: 1400},
		}},
		{9000, []config{
			{name: "gre", want: 8962},
			{name: "gre over IPv6", v6: true, want: 8942},
		}},
	} {
		t.Run("underlay "+strconv.Itoa(u.mtu), func(t *testing.T) {
			t.Parallel()
			l := testnet.New(t, testnet.Options{Hosts: 2, UnderlayMTU: u.mtu, PluginDir: cnitest.BinDir(t)})
			for _, c := range u.configs {
				if c.tunnel["csum"] != nil && l.Datapath == testnet.DatapathSystem {
					continue // which ADD refuses: test/kernel sees to that
				}
				t.Run(c.name, func(t *testing.T) {
					conf := cnitest.Conf{"mtu": c.mtu, "tunnel": c.tunnel}
					if c.tunnel == nil {
						delete(conf, "tunnel")
					}
					cnitest.Network{V6: c.v6, OVSGRE: conf}.Install(t, l)
					cs := one(t, l, "ovsnet")
					wire := l.Capture(t, "("+gre+") and len = "+strconv.Itoa(14+u.mtu))
					fits(t, cs[0], cs[1], c.want)
					// An MTU that is found out leaves no byte of the underlay's unused:
					// the echo requests and replies of both families fill it.
					if lines := wire.Stop(t); c.mtu == 0 && len(lines) != 4 {
						t.Errorf("want 4 packets of %d bytes on the underlay, there are:\n%s", u.mtu, strings.Join(lines, "\n"))
					}
					for _, c := range cs {
						del(t, c)
					}
				})
			}
		})
	}
}

// TestMTUChanges: a container's MTU follows from the ways to the peers as they
// are when it is attached, whatever somebody has made of the bridge's.
func TestMTUChanges(t *testing.T) {
	t.Parallel()
	l := testnet.New(t, testnet.Options{Hosts: 2, PluginDir: cnitest.BinDir(t)})
	cnitest.Network{}.Install(t, l)
	all := one(t, l, "ovsnet")
	for i, tt := range []struct {
		script string
		want   int
	}{
		{"ip link set obr0 mtu 1300", 1462},
		{"ip link set obr0 mtu 1000", 1462}, // less than IPv6 takes
		{"ip route add 172.16.32.0/25 dev " + l.Hosts[0].UnderlayLink + " mtu 1400", 1362},
	} {
		var cs []*cnitest.Container
		for _, h := range l.Hosts {
			h.Shell(t, tt.script)
			cs = append(cs, cnitest.Add(t, h, "ovsnet", "next"+strconv.Itoa(i)))
		}
		fits(t, cs[0], cs[1], tt.want)
		all = append(all, cs...)
	}
	for _, c := range all {
		del(t, c)
	}
}

// fits wants the MTU at both containers, in the result, and on the way.
func fits(t *testing.T, from, to *cnitest.Container, mtu int) {
	t.Helper()
	for _, c := range []*cnitest.Container{from, to} {
		if got := linkMTU(t, c, "eth0"); got != mtu {
			t.Errorf("%s: MTU %d, want %d", c.Host.Name, got, mtu)
		}
		for _, i := range c.Result.Interfaces {
			if i.Mtu != mtu {
				t.Errorf("%s: the result says that %s has MTU %d, want %d", c.Host.Name, i.Name, i.Mtu, mtu)
			}
		}
		for _, link := range []string{"obr0", "obr0-t", port(c)} {
			if got := linkMTU(t, c.Host, link); got != mtu {
				t.Errorf("%s: %s has MTU %d, want %d", c.Host.Name, link, got, mtu)
			}
		}
	}
	for _, v6 := range families {
		header := 28 // IPv4 and ICMP
		if v6 {
			header = 48
		}
		ping := func(size int) error {
			return testnet.Ping(context.Background(), from, to.Addr(t, v6), testnet.PingOptions{Size: size - header, DontFragment: true, Wait: 10 * time.Second})
		}
		if err := ping(mtu); err != nil {
			t.Errorf("%s of %d bytes: %v", familyName(v6), mtu, err)
		}
		if err := ping(mtu + 1); err == nil {
			t.Errorf("%s of %d bytes passes", familyName(v6), mtu+1)
		}
	}
}

func linkMTU(t *testing.T, at testnet.Runner, link string) int {
	t.Helper()
	n, err := strconv.Atoi(at.Shell(t, `printf %s "$(ip -o link show `+link+` | sed 's/.* mtu //; s/ .*//')"`))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
