package hostile

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// checked is a network whose containers' frames are looked at, where the
// datapath lets the kernel do so.
type checked struct {
	name string
	keys cnitest.Conf
}

// checks are the networks that ask for it on the kernel's datapath, and on the
// other those that would have it by default.
func checks(datapath string) []checked {
	list := []checked{{"segment container", cnitest.Conf{"segment": "container"}}}
	if datapath == testnet.DatapathSystem {
		list = append(list, checked{"segment host, spoofchk", cnitest.Conf{"spoofchk": true}}, checked{"segment mesh, spoofchk", cnitest.Conf{"segment": "mesh", "spoofchk": true}})
	}
	return list
}

// TestSpoofedSource is row 10: a container sends packets from outside's, a
// peer's and its neighbour's addresses. How many arrive at another host's
// container is printed; of IPv4 from outside of this host's subnets none may in
// the segments in which the host's reverse path filter sees them, and of all
// none where frames are checked.
func TestSpoofedSource(t *testing.T) {
	t.Parallel()
	list := append([]checked{{"segment host", nil}}, checks(datapath(t))...)
	for _, tt := range list {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, tt.keys, "")
			gw := mac(t, s.Hosts[0], s.gateway)
			if tt.keys["segment"] == "mesh" {
				gw = mac(t, s.peer, "eth0")
			}
			all := 0
			for _, from := range []struct {
				name string
				addr netip.Addr
			}{
				{"outside, IPv4", netip.MustParseAddr("8.8.8.8")},
				{"a peer's container, IPv4", netip.MustParseAddr("192.168.2.99")},
				{"outside, IPv6", far},
				{"a neighbour, IPv4", s.victim.Addr(t, false)},
				{"a neighbour, IPv6", s.victim.Addr(t, true)},
			} {
				at := testnet.CaptureIn(t, s.peer, "eth0", "udp port 9999")
				etherType := uint16(cnitest.TypeIPv4)
				if from.addr.Is6() {
					etherType = cnitest.TypeIPv6
				}
				frame := cnitest.Frame(gw, s.mac, etherType, cnitest.UDP(from.addr, s.peer.Addr(t, from.addr.Is6()), 9999, "spoofed"))
				send(t, s.attacker, "eth0", frame, frame, frame)
				cnitest.Reach(t, "attacker to peer", s.attacker, s.peer.Addr(t, from.addr.Is6())) // they have passed
				n := len(at.Stop(t))
				all += n
				figure("row 10: %s, %s datapath: of 3 packets from the address of %s %d arrive", tt.name, s.Datapath, from.name, n)
				if n > 0 && from.addr.Is4() && from.addr != s.victim.Addr(t, false) {
					t.Errorf("%d of 3 packets from %s arrive", n, from.addr)
				}
			}
			if all > 0 && s.Datapath == testnet.DatapathSystem && tt.name != "segment host" {
				t.Errorf("%d spoofed packets arrive although frames are checked", all)
			}
		})
	}
}

// TestStolenMAC: a container sends with its neighbour's MAC address. Where
// frames are checked the neighbour loses nothing.
func TestStolenMAC(t *testing.T) {
	t.Parallel()
	for _, tt := range append([]checked{{"segment host", nil}}, checks(datapath(t))...) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, tt.keys, "")
			stolen := mac(t, s.victim, "eth0")
			frame := cnitest.Frame("02:00:00:00:00:99", stolen, cnitest.TypeARP, cnitest.ARP(1, stolen, s.attacker.Addr(t, false), netip.MustParseAddr("192.168.1.251")))
			stop := keepSending(t, s.attacker, "eth0", 5*time.Millisecond, frame)
			lost := loss(t, s.peer, s.victim.Addr(t, false), 40)
			stop()
			figure("row 9: %s, %s datapath: the neighbour whose MAC address a container sends with loses %d %%", tt.name, s.Datapath, lost)
			if lost > 10 && s.Datapath == testnet.DatapathSystem && tt.name != "segment host" {
				t.Errorf("the neighbour loses %d %% although frames are checked", lost)
			}
		})
	}
}

// TestSpoofChk follows the chains of two containers from ADD to the last DEL on
// the kernel's datapath. On the other they would see nothing: there the key is
// refused, and the default is without.
func TestSpoofChk(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	table := func() string {
		return h.Shell(t, "nft list table netdev ovs-gre-ovsnet 2>/dev/null || :")
	}
	if l.Datapath == testnet.DatapathNetdev {
		spoofChkInUserspace(t, l, table)
		return
	}
	cnitest.Network{OVSGRE: cnitest.Conf{"segment": "container"}}.Install(t, l)
	c, stays := cnitest.Add(t, h, "ovsnet", "c1"), cnitest.Add(t, h, "ovsnet", "stays")
	chains := func(want int, when string) {
		t.Helper()
		if got := strings.Count(table(), "hook ingress device"); got != want {
			t.Errorf("%s: want %d chains, have\n%s", when, want, table())
		}
	}
	checks := func(when string) {
		t.Helper()
		if err := c.Call("check"); err != nil {
			t.Errorf("%s: CHECK: %v", when, err)
		}
	}
	chains(2, "after ADD")
	checks("after ADD")
	h.Run(t, "nft", "flush", "table", "netdev", "ovs-gre-ovsnet")
	if err := c.Call("check"); err == nil || !strings.Contains(err.Error(), "spoof check") {
		t.Errorf("CHECK after a flush: %v", err)
	}
	h.Run(t, "nft", "delete", "table", "netdev", "ovs-gre-ovsnet")
	h.Run(t, "/opt/cni/bin/ovs-grectl", "up", "/etc/cni/net.d/10-ovsnet.conflist")
	chains(2, "after up")
	checks("after up")
	for _, step := range []func(context.Context) error{h.KillVswitchd, h.StartVswitchd} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	chains(2, "after a restart of ovs-vswitchd")
	if err := c.Call("del"); err != nil {
		t.Error(err)
	}
	chains(1, "after DEL")
	c.Attach(t)
	chains(2, "after ADD again")
	checks("after ADD again")
	c.Delete(t)
	if err := c.Call("del"); err != nil {
		t.Error(err)
	}
	chains(1, "after DEL without a namespace")
	h.Run(t, "/opt/cni/bin/ovs-grectl", "down", "--force", "/etc/cni/net.d/10-ovsnet.conflist")
	if out := table(); out != "" {
		t.Errorf("after down: %s", out)
	}
	_ = stays
}

func spoofChkInUserspace(t *testing.T, l *testnet.Lab, table func() string) {
	h := l.Hosts[0]
	for name, keys := range map[string]cnitest.Conf{
		"of our own":     {"spoofchk": true},
		"that was there": {"spoofchk": true, "datapathType": nil, "adoptBridge": true, "bridge": "br-ex"},
	} {
		if keys["adoptBridge"] != nil {
			h.Shell(t, "ovs-vsctl --timeout=60 add-br br-ex -- set bridge br-ex datapath_type=netdev; ip link set br-ex up")
		}
		cnitest.Network{OVSGRE: keys}.Install(t, l)
		c := &cnitest.Container{Netns: h.NewNetns(t, "refused"), Network: "ovsnet", IfName: "eth0"}
		if err := c.Call("add"); err == nil || !strings.Contains(err.Error(), config.NoSpoofChk) {
			t.Errorf("spoofchk on a userspace bridge %s: %v, want %q", name, err, config.NoSpoofChk)
		}
		c.Delete(t)
	}
	cnitest.Network{OVSGRE: cnitest.Conf{"segment": "container"}}.Install(t, l)
	c, near := cnitest.Add(t, h, "ovsnet", "c1"), cnitest.Add(t, h, "ovsnet", "near")
	if out := table(); out != "" {
		t.Errorf("a chain that sees nothing: %s", out)
	}
	// Why: what the kernel drops at the port OVS has already.
	port := config.PortName("ovsnet", c.ID(), "eth0")
	h.Run(t, "nft", fmt.Sprintf("table netdev probe { chain c { type filter hook ingress device %q priority 0; policy drop; }; }", port))
	cnitest.Reach(t, "by a port at which the kernel drops all", c, near.Addr(t, false))
}
