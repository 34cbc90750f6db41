package e2e

import (
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestNetworks has two networks on the same hosts, of tunnels with keys.
func TestNetworks(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	bare := snapshot(t, l.Hosts[0])
	subnets := func(i int) []string {
		return []string{fmt.Sprintf("10.9.%d.0/24", i+1), fmt.Sprintf("fd09:%d::/64", i+1)}
	}
	blue := cnitest.Network{Name: "blue", OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"key": 1}, "ipMasq": true}}
	red := cnitest.Network{Name: "red", Subnets: subnets,
		OVSGRE: cnitest.Conf{"bridge": "obr1", "tunnel": cnitest.Conf{"key": 2}, "ipMasq": true, "isDefaultGateway": false}}
	blue.Install(t, l)
	red.Install(t, l)
	blues, reds := one(t, l, "blue"), []*cnitest.Container{}
	onlyBlue := snapshot(t, l.Hosts[0])
	for _, h := range l.Hosts {
		reds = append(reds, cnitest.Add(t, h, "red", "red"))
	}
	for _, h := range l.Hosts { // and one in both, its second interface red's
		c := cnitest.Add(t, h, "blue", "both")
		second := &cnitest.Container{Netns: c.Netns, Network: "red", IfName: "eth1"}
		second.Attach(t)
		blues, reds = append(blues, c), append(reds, second)
	}
	for key, cs := range map[string][]*cnitest.Container{"key=0x1": blues, "key=0x2": reds} {
		for i := range cs {
			for j := range cs {
				if i == j {
					continue
				}
				for _, v6 := range families {
					wire := l.Capture(t, gre)
					reach(t, cs[i].Network+" "+cs[i].Name+" to "+cs[j].Name, cs[i], cs[j].Addr(t, v6))
					lines, want := wire.Stop(t), 0
					if cs[i].Host != cs[j].Host {
						want = 2
					}
					if seen(lines, "echo", key) != want || seen(lines, "echo") != want {
						t.Errorf("want %d packets with %s on the underlay:\n%s", want, key, strings.Join(lines, "\n"))
					}
				}
			}
		}
		for _, c := range cs {
			if err := c.Call("check"); err != nil {
				t.Errorf("%s %s: CHECK: %v", c.Network, c.Name, err)
			}
		}
	}
	t.Run("broadcast", func(t *testing.T) {
		c := testnet.CaptureIn(t, reds[0], "eth0", "broadcast")
		asks := testnet.CaptureIn(t, blues[2], "eth0", "arp")
		blues[0].Shell(t, "ping -c1 -W0.1 192.168.1.250 >/dev/null || true")
		reach(t, "the next container", blues[0], blues[2].Addr(t, false))
		reach(t, "red gateway", reds[0], reds[2].Addr(t, false))
		if lines := asks.Stop(t); seen(lines, "who-has 192.168.1.250") == 0 {
			t.Errorf("a container of the network does not hear the broadcast:\n%s", strings.Join(lines, "\n"))
		}
		if lines := c.Stop(t); seen(lines, "192.168.1.250") != 0 {
			t.Errorf("a container of the other network hears the broadcast:\n%s", strings.Join(lines, "\n"))
		}
	})
	// One goes, the other stays.
	for _, c := range []*cnitest.Container{reds[2], reds[3], reds[0], reds[1], blues[2], blues[3]} {
		if err := c.Call("del"); err != nil {
			t.Fatal(err)
		}
		if c.IfName == "eth0" {
			c.Delete(t)
		}
	}
	unchanged(t, l.Hosts[0], onlyBlue)
	both(t, blues[0], blues[1])
	del(t, blues[0])
	unchanged(t, l.Hosts[0], bare)
}

// TestLastContainer wants host state to stay for as long as a container is
// there, and nothing to stay after the last.
func TestLastContainer(t *testing.T) {
	t.Parallel()
	for _, underlay6 := range families {
		l := lab(t, 2)
		h := l.Hosts[0]
		bare := snapshot(t, h)
		cnitest.Network{V6: underlay6, OVSGRE: cnitest.Conf{"ipMasq": true}}.Install(t, l)
		cs := one(t, l, "ovsnet")
		first := snapshot(t, h)
		if first == bare {
			t.Error("ADD has changed nothing")
		}
		second := cnitest.Add(t, h, "ovsnet", "second")
		both(t, second, cs[1])
		del(t, second)
		unchanged(t, h, first)
		both(t, cs[0], cs[1])
		for range 2 { // DEL again is fine
			if err := cs[0].Call("del"); err != nil {
				t.Fatal(err)
			}
		}
		cs[0].Delete(t)
		unchanged(t, h, bare)
		if left := h.Shell(t, "ls -d /run/ovs-gre 2>/dev/null || true"); left != "" {
			t.Errorf("left: %s", left)
		}
		c := cnitest.Add(t, h, "ovsnet", "after")
		both(t, c, cs[1])
	}
}
