package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestMesh looks at the one segment over three hosts: each broadcast reaches
// every container once and ends, ARP and neighbour discovery cross the tunnels.
func TestMesh(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	cnitest.Network{OVSGRE: cnitest.Conf{"segment": "mesh"}}.Install(t, l)
	cs := one(t, l, "ovsnet")
	from, others := cs[0], append(cs[1:], cnitest.Add(t, l.Hosts[0], "ovsnet", "near"))
	for _, to := range others {
		for _, v6 := range families {
			reach(t, "container 1 to "+to.Name, from, to.Addr(t, v6))
		}
	}
	t.Run("route", func(t *testing.T) {
		for i, subnet := range cnitest.Subnets(1) {
			route := from.Host.Run(t, "ip", "-o", "route", "show", subnet)
			if i == 1 {
				route = from.Host.Run(t, "ip", "-6", "-o", "route", "show", subnet)
			}
			if !strings.Contains(route, subnet+" dev obr0 ") || strings.Contains(route, "via") {
				t.Errorf("want %s dev obr0, there is %q", subnet, route)
			}
		}
	})
	t.Run("neighbours", func(t *testing.T) {
		for _, v6 := range families {
			to := cs[2].Addr(t, v6)
			ask := "who-has " + to.String()
			if v6 {
				ask = "neighbor solicitation, who has " + to.String()
			}
			from.Host.Shell(t, "ip neigh flush dev obr0; ip -6 neigh flush dev obr0")
			wire := l.Capture(t, gre)
			reach(t, "container 1 to container 3", from, to)
			// One copy for each of the two peers.
			if lines := wire.Stop(t); seen(lines, ask) < 2 || seen(lines, ask) > 4 {
				t.Errorf("want host 1 to ask %q through both tunnels:\n%s", ask, strings.Join(lines, "\n"))
			}
		}
	})
	t.Run("broadcast", func(t *testing.T) {
		const asks, most = 5, 200
		idle := during(t, l, from, cs[1])
		wire := l.Capture(t, gre)
		var at []*testnet.Capture
		for _, c := range append(others, from) {
			at = append(at, testnet.CaptureIn(t, c, "eth0", "arp"))
		}
		var frames []string
		mac := from.Result.Interfaces[2].Mac
		nobody := func(i int) string { return fmt.Sprintf("192.168.1.%d", 200+i) }
		for i := range asks {
			arp := cnitest.ARP(1, mac, from.Addr(t, false), netip.MustParseAddr(nobody(i)))
			frames = append(frames, cnitest.Frame(cnitest.Broadcast, mac, cnitest.TypeARP, arp))
		}
		if out, err := program(context.Background(), from, "frames", append([]string{"eth0"}, frames...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		// A loop would keep them going for as long as the machine runs.
		after := during(t, l, from, cs[1])
		if after > idle+most {
			t.Errorf("%d packets on the underlay while two containers ping each other, %d before %d broadcasts: they do not end", after, idle, asks)
		}
		for _, c := range others { // what comes after them shows that they have passed
			reach(t, "container 1 to "+c.Name, from, c.Addr(t, false))
		}
		lines := wire.Stop(t)
		for k, c := range append(others, from) { // one's own tcpdump sees what one sends
			got := at[k].Stop(t)
			for i := range asks {
				if n := seen(got, "who-has "+nobody(i)+" "); n != 1 {
					t.Errorf("%s on %s: want one copy of the broadcast for %s, there came %d", c.Name, c.Host.Name, nobody(i), n)
				}
			}
		}
		for i := range asks {
			if n := seen(lines, "who-has "+nobody(i)+" "); n != 2 {
				t.Errorf("want the broadcast for %s once to each of two peers, on the underlay are %d packets", nobody(i), n)
			}
		}
	})
}

// during counts the packets on the underlay while one container pings another
// for some time.
func during(t *testing.T, l *testnet.Lab, from, to *cnitest.Container) uint64 {
	t.Helper()
	before := l.UnderlayPackets(t)
	_ = testnet.Ping(context.Background(), from, to.Addr(t, false), testnet.PingOptions{Count: 10})
	return l.UnderlayPackets(t) - before
}
