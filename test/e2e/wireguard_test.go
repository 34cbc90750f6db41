package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// encrypted is a network over WireGuard.
func encrypted(v6 bool) cnitest.Network {
	return cnitest.Network{V6: v6, OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"type": "wireguard"}, "ipMasq": true}}
}

// install gives every host a conflist with these keys.
func installKeyed(t *testing.T, l *testnet.Lab, n cnitest.Network, keys map[string]string) {
	t.Helper()
	n.OVSGRE = maps.Clone(n.OVSGRE)
	n.OVSGRE["nodes"] = n.Keyed(l, keys)
	n.Install(t, l)
}

// wireGuard makes an encrypted network on a lab's hosts; nothing is up yet.
func wireGuard(t *testing.T, l *testnet.Lab, v6 bool) (cnitest.Network, map[string]string) {
	t.Helper()
	n := encrypted(v6)
	n.Install(t, l)
	for _, h := range l.Hosts {
		cnitest.StartWireGuard(t, h, "ovsnet", "obr0")
	}
	keys := cnitest.Keys(t, l.Hosts)
	installKeyed(t, l, n, keys)
	return n, keys
}

// clear is tcpdump's filter for what must not be on the underlay: packets of
// containers, as they are or inside of a tunnel of OVS's.
const clear = "net 192.168.0.0/16 or net fd92::/16 or ip proto 47 or ip6 proto 47 or udp port 4789"

// noneClear ends a capture and wants it empty.
func noneClear(t *testing.T, c *testnet.Capture) {
	t.Helper()
	if lines := c.Stop(t); len(lines) > 0 {
		t.Errorf("%d packets in clear on the underlay, the first:\n%s", len(lines), strings.Join(lines[:min(len(lines), 5)], "\n"))
	}
}

// TestWireGuard pings all pairs over both underlays, the largest packet too, and
// wants nothing in clear and nothing left.
func TestWireGuard(t *testing.T) {
	for _, underlay6 := range families {
		t.Run("over "+familyName(underlay6), func(t *testing.T) {
			t.Parallel()
			l := lab(t, 3)
			var before []string
			for _, h := range l.Hosts {
				before = append(before, snapshot(t, h))
			}
			wireGuard(t, l, underlay6)
			wire := l.Capture(t, clear)
			cs := one(t, l, "ovsnet")
			sealed := l.Capture(t, "udp port 51820")
			for _, v6 := range families {
				pairs(t, cs, v6)
			}
			if len(sealed.Stop(t)) == 0 {
				t.Error("no packet of WireGuard's on the underlay")
			}
			mtu := map[bool]int{false: 1440, true: 1420}[underlay6]
			largest(t, cs[0], cs[1], mtu)
			for _, c := range cs {
				if err := c.Call("check"); err != nil {
					t.Errorf("CHECK on %s: %v", c.Host.Name, err)
				}
				if r := cnitest.Ctl(t, c.Host, "status"); r.Code != 0 || !strings.Contains(r.Out, "last handshake") {
					t.Errorf("status: %d\n%s%s", r.Code, r.Out, r.Err)
				}
			}
			noneClear(t, wire)
			for i, c := range cs {
				del(t, c)
				unchanged(t, c.Host, before[i])
			}
		})
	}
}

// largest wants the MTU at both containers, and it and no more on the way.
func largest(t *testing.T, from, to *cnitest.Container, mtu int) {
	t.Helper()
	for _, c := range []*cnitest.Container{from, to} {
		for _, link := range []string{"obr0", "obr0-w", port(c)} {
			if got := linkMTU(t, c.Host, link); got != mtu {
				t.Errorf("%s: %s has MTU %d, want %d", c.Host.Name, link, got, mtu)
			}
		}
		if got := linkMTU(t, c, "eth0"); got != mtu {
			t.Errorf("%s: MTU %d, want %d", c.Host.Name, got, mtu)
		}
	}
	for _, v6 := range families {
		header := map[bool]int{false: 28, true: 48}[v6] // IP and ICMP
		ping := func(size int) error {
			return testnet.Ping(t.Context(), from, to.Addr(t, v6), testnet.PingOptions{Size: size - header, DontFragment: true, Wait: 10 * time.Second})
		}
		if err := ping(mtu); err != nil {
			t.Errorf("%s of %d bytes: %v", familyName(v6), mtu, err)
		}
		if err := ping(mtu + 1); err == nil {
			t.Errorf("%s of %d bytes passes", familyName(v6), mtu+1)
		}
	}
}

// ctlUp calls ovs-grectl up on hosts.
func ctlUp(t *testing.T, hosts ...*testnet.Host) {
	t.Helper()
	for _, h := range hosts {
		if r := cnitest.Ctl(t, h, "up"); r.Code != 0 {
			t.Fatalf("%s: ovs-grectl up: %d\n%s%s", h.Name, r.Code, r.Out, r.Err)
		}
	}
}

// none wants no answer from one container to another, in either family.
func none(t *testing.T, what string, from, to *cnitest.Container) {
	t.Helper()
	for _, a := range to.Addrs() {
		if testnet.Ping(t.Context(), from, a, testnet.PingOptions{Count: 2}) == nil {
			t.Errorf("%s: %s reaches %s", what, from.Name, a)
		}
	}
}

// TestWireGuardFailsClosed takes away what encrypts, and leads packets past it:
// nothing passes in clear, out of a host or into it.
func TestWireGuardFailsClosed(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	wireGuard(t, l, false)
	wire := l.Capture(t, clear)
	cs := one(t, l, "ovsnet")
	cnitest.AllReach(t, cs)
	h, peer := l.Hosts[0], l.Hosts[1]
	const key = "/var/lib/ovs-gre/ovsnet.key"
	for _, step := range []struct{ name, gone, back string }{
		{"the link is gone", "ip link del obr0-w", ""},
		{"the link is down", "ip link set obr0-w down", ""},
		{"the key is gone", "mv " + key + " /var/lib/ovs-gre/kept; /opt/cni/bin/ovs-grectl up", "mv /var/lib/ovs-gre/kept " + key},
		{"the routes are gone", "ip route flush proto 121; ip -6 route flush proto 121", ""},
		{"somebody routes past it", "ip route replace 192.168.2.0/24 proto 121 src 192.168.1.1 via " + peer.Addr4.String() +
			"; ip -6 route replace fd92:2::/64 proto 121 src fd92:1::1 via " + peer.Addr6.String(), ""},
	} {
		h.Shell(t, step.gone)
		none(t, step.name, cs[0], cs[1])
		none(t, step.name, cs[1], cs[0])
		if err := cs[0].Call("check"); err == nil && step.back == "" {
			t.Errorf("%s: CHECK finds nothing", step.name)
		}
		h.Shell(t, step.back)
		if strings.Contains(step.gone, "link del") {
			cnitest.StartWireGuard(t, h, "ovsnet", "obr0")
		}
		ctlUp(t, h)
		cnitest.AllReach(t, cs)
	}
	noneClear(t, wire)

	// A peer without a guard sends in clear: what it sends is seen, and not taken.
	peer.Shell(t, "nft delete table inet ovs-gre-ovsnet/guard; ip route replace 192.168.1.0/24 via "+h.Addr4.String())
	wire = l.Capture(t, clear)
	inside := testnet.CaptureIn(t, cs[0], "eth0", "icmp")
	if testnet.Ping(t.Context(), cs[1], cs[0].Addr(t, false), testnet.PingOptions{Count: 2}) == nil {
		t.Error("what a peer sends in clear is answered")
	}
	if len(wire.Stop(t)) == 0 {
		t.Error("without a guard nothing is seen in clear: the captures prove nothing")
	}
	if lines := inside.Stop(t); len(lines) > 0 {
		t.Errorf("what came in clear was taken: %s", lines[0])
	}
	peer.Shell(t, "ip route del 192.168.1.0/24")
	if r := cnitest.Ctl(t, peer, "status"); r.Code != 1 || !strings.Contains(r.Out, "DRIFT: guard against clear packets of network ovsnet is missing") {
		t.Errorf("status without a guard: %d\n%s", r.Code, r.Out)
	}
	cnitest.Add(t, peer, "ovsnet", "late") // brings it back
	ctlUp(t, peer)
	cnitest.AllReach(t, cs)
	if r := cnitest.Ctl(t, peer, "status"); r.Code != 0 {
		t.Errorf("status at the end: %d\n%s", r.Code, r.Out)
	}
}

// TestWireGuardRestarts: OVS and then a whole host begin anew; nothing passes in
// clear meanwhile, and the host has the key that it had.
func TestWireGuardRestarts(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	_, keys := wireGuard(t, l, false)
	wire := l.Capture(t, clear)
	cs := one(t, l, "ovsnet")
	cnitest.AllReach(t, cs)
	last := l.Hosts[2]
	if err := last.StopOVS(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := last.StartOVS(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctlUp(t, last)
	cnitest.AllReach(t, cs)
	if err := last.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	cnitest.StartWireGuard(t, last, "ovsnet", "obr0")
	ctlUp(t, last)
	cs[2] = cnitest.Add(t, last, "ovsnet", "again")
	if again := cnitest.Keys(t, []*testnet.Host{last}); again[last.Name] != keys[last.Name] {
		t.Error("the host has another key after a reboot")
	}
	cnitest.AllReach(t, cs)
	noneClear(t, wire)
}

// TestWireGuardKeys begins with a host whose key nobody knows, and then gives one
// another key while pings go on.
func TestWireGuardKeys(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	n, keys := wireGuard(t, l, false)
	third := keys[l.Hosts[2].Name]
	delete(keys, l.Hosts[2].Name)
	installKeyed(t, l, n, keys)
	wire := l.Capture(t, clear)
	cs := one(t, l, "ovsnet")
	cnitest.AllReach(t, cs[:2])
	none(t, "without a key", cs[0], cs[2])
	none(t, "without a key", cs[2], cs[0])
	if err := cs[0].Call("check"); err != nil {
		t.Errorf("CHECK beside a node without a key: %v", err)
	}
	if r := cnitest.Ctl(t, l.Hosts[0], "status"); r.Code != 0 || !strings.Contains(r.Out, "nodes have no key for host3") {
		t.Errorf("status beside a node without a key: %d\n%s", r.Code, r.Out)
	}
	if r := cnitest.Ctl(t, l.Hosts[0], "doctor", "-v"); !strings.Contains(r.Out, "warn  wireguard (ovsnet): nodes have no key for host3") ||
		!strings.Contains(r.Out, "ok    wireguard (ovsnet): sessions with 1 of 2 peers") {
		t.Errorf("doctor beside a node without a key: %d\n%s", r.Code, r.Out)
	}
	keys[l.Hosts[2].Name] = third
	installKeyed(t, l, n, keys)
	ctlUp(t, l.Hosts...)
	cnitest.AllReach(t, cs)

	next := cnitest.Keys(t, l.Hosts[:1], "--next")
	if again := cnitest.Keys(t, l.Hosts[:1], "--next"); !maps.Equal(again, next) || next["host1"] == keys["host1"] {
		t.Errorf("ovs-grectl key --next: %v, then %v; the key is %s", next, again, keys["host1"])
	}
	keys["host1"] = next["host1"]
	sent, answered := cnitest.During(t, cs[1], cs[0], time.Minute, func() {
		installKeyed(t, l, n, keys)
		ctlUp(t, l.Hosts...)
	})
	fmt.Printf("wireguard: another key, host after host: of %d pings, one every 50 ms, %d were answered\n", sent, answered)
	cnitest.AllReach(t, cs)
	if now := cnitest.Keys(t, l.Hosts[:1]); now["host1"] != next["host1"] {
		t.Error("ovs-grectl key still prints the old key")
	}
	noneClear(t, wire)

	keys["host1"], keys["host2"] = keys["host2"], keys["host1"]
	installKeyed(t, l, n, keys)
	if r := cnitest.Ctl(t, l.Hosts[0], "status"); r.Code != 1 || !strings.Contains(r.Out, "DRIFT: nodes have "+keys["host1"]+" for this host's key") {
		t.Errorf("status with another's key: %d\n%s", r.Code, r.Out)
	}
}

// TestWireGuardUpgrade takes a network with containers from GRE to WireGuard and
// back; each leaves nothing of the other.
func TestWireGuardUpgrade(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	plain := cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}}
	plain.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	cnitest.AllReach(t, cs)
	wireGuard(t, l, false)
	ctlUp(t, l.Hosts...)
	wire := l.Capture(t, clear)
	cnitest.AllReach(t, cs)
	for _, h := range l.Hosts {
		if _, err := h.Output(t.Context(), "ovs-vsctl", "br-exists", "obr0-t"); err == nil {
			t.Errorf("%s: the tunnels' bridge is still there", h.Name)
		}
	}
	for _, c := range cs {
		// Containers keep the MTU that they were attached with.
		if err := c.Call("check"); err == nil || !strings.Contains(err.Error(), "has mtu 1462, should be at most 1440") {
			t.Errorf("%s: CHECK: %v", c.Host.Name, err)
		}
		c.Shell(t, "ip link set eth0 mtu 1440")
		if err := c.Call("check"); err != nil {
			t.Errorf("%s: CHECK: %v", c.Host.Name, err)
		}
	}
	noneClear(t, wire)
	plain.Install(t, l)
	ctlUp(t, l.Hosts...)
	cnitest.AllReach(t, cs)
	for _, h := range l.Hosts {
		if left := h.Shell(t, "ip -o link show dev obr0-w 2>/dev/null || :; nft list tables | grep guard || :"); left != "" {
			t.Errorf("%s: left over: %s", h.Name, left)
		}
		if r := cnitest.Ctl(t, h, "status"); r.Code != 0 {
			t.Errorf("%s: status: %d\n%s", h.Name, r.Code, r.Out)
		}
	}
}

// TestWireGuardTaken: a link or a port of somebody else's stays, and so does what
// a route-sync of another mode would send in clear.
func TestWireGuardTaken(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	n, _ := wireGuard(t, l, false)
	h := l.Hosts[0]
	h.Shell(t, "ip link set dev obr0-w alias '' 2>/dev/null || ip link add obr0-w type dummy")
	before := snapshot(t, h)
	if r := cnitest.Ctl(t, h, "up"); r.Code != 1 || !strings.Contains(r.Err, "WireGuard link obr0-w is in the way") {
		t.Errorf("up: %d\n%s%s", r.Code, r.Out, r.Err)
	}
	if r := cnitest.Ctl(t, h, "down"); r.Code != 0 {
		t.Errorf("down: %d\n%s%s", r.Code, r.Out, r.Err)
	}
	unchanged(t, h, before)
	h.Shell(t, "ip link del obr0-w")
	cnitest.StartWireGuard(t, h, "ovsnet", "obr0")
	n.RouteSync = cnitest.Conf{"mode": "direct"}
	n.Install(t, l)
	if r := cnitest.Ctl(t, h, "up"); r.Code == 0 || !strings.Contains(r.Err, `mode "direct": what goes by the peer's address is not encrypted`) {
		t.Errorf("up with mode direct: %d\n%s%s", r.Code, r.Out, r.Err)
	}
}

// TestWireGuardMissing: on a kernel without WireGuard ADD says so, and leaves nothing.
func TestWireGuardMissing(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	if h.Shell(t, "ip link add wgprobe type wireguard 2>/dev/null && ip link del wgprobe && echo yes || :") != "" {
		return // this one has it
	}
	encrypted(false).Install(t, l)
	before := snapshot(t, h)
	c := &cnitest.Container{Netns: h.NewNetns(t, "c1"), Network: "ovsnet", IfName: "eth0"}
	err := c.Call("add")
	if err == nil || !strings.Contains(err.Error(), "WireGuard link obr0-w: this kernel has no WireGuard") {
		t.Errorf("ADD: %v", err)
	} else if strings.Contains(err.Error(), "no such") {
		t.Errorf("ADD says what follows from that, too: %v", err)
	}
	if err := c.Call("del"); err != nil {
		t.Errorf("DEL: %v", err)
	}
	unchanged(t, h, before)
}
