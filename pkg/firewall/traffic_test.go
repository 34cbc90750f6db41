package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// newPeer makes a network namespace next to the test's, which lives as long as
// the test at most, and returns a process in it.
func newPeer(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command("unshare", "-n", "cat") // until the pipe closes
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	netns := func(proc string) string { s, _ := os.Readlink("/proc/" + proc + "/ns/net"); return s }
	for start := time.Now(); netns(fmt.Sprint(cmd.Process.Pid)) == netns("thread-self"); time.Sleep(time.Millisecond) { //nolint:forbidigo // a poll with a limit
		if time.Since(start) > 5*time.Second {
			t.Fatal("unshare -n makes no namespace")
		}
	}
	return cmd.Process.Pid
}

// newRouter makes the test's namespace a host: a container behind obr0,
// another behind other0, and a world behind eth0 that holds a public address
// and, as a tunnel would, a peer's container.
func newRouter(t *testing.T) (container, other, world string) {
	newNetns(t, "nft", "iptables", "ip", "ping", "unshare", "nsenter")
	enter := func(pid int) string { return fmt.Sprintf("nsenter -n -t %d ", pid) }
	c, o, w := newPeer(t), newPeer(t), newPeer(t)
	container, other, world = enter(c), enter(o), enter(w)
	join := func(dev string, pid int, host4, host6, peer4, peer6 string) {
		in := enter(pid)
		sh(t, fmt.Sprintf(`
			echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
			%[5]s sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'
			ip link add %[1]s type veth peer name eth0 netns %[2]d
			ip addr add %[3]s dev %[1]s; ip addr add %[4]s dev %[1]s nodad; ip link set %[1]s up
			%[5]s ip addr add %[6]s dev eth0; %[5]s ip addr add %[7]s dev eth0 nodad
			%[5]s ip link set lo up; %[5]s ip link set eth0 up
			%[5]s ip route add default via %[8]s; %[5]s ip route add default via %[9]s`,
			dev, pid, host4, host6, in, peer4, peer6, strings.Split(host4, "/")[0], strings.Split(host6, "/")[0]))
	}
	sh(t, "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	join("obr0", c, "10.1.0.1/24", "fd00:1::1/64", "10.1.0.2/24", "fd00:1::2/64")
	join("other0", o, "10.9.0.1/24", "fd00:9::1/64", "10.9.0.2/24", "fd00:9::2/64")
	join("eth0", w, "192.0.2.1/24", "2001:db8::1/64", "192.0.2.2/24", "2001:db8::2/64")
	sh(t, world+"ip addr add 10.1.1.2/32 dev lo; "+world+"ip addr add fd00:2::2/128 dev lo")
	sh(t, "ip route add 10.1.1.0/24 via 192.0.2.2; ip route add fd00:2::/64 via 2001:db8::2")
	sh(t, world+`nft 'table inet seen {
		set v4 { type ipv4_addr . ipv4_addr; flags dynamic; size 99; }
		set v6 { type ipv6_addr . ipv6_addr; flags dynamic; size 99; }
		chain pre { type filter hook prerouting priority 0;
			icmp type echo-request add @v4 { ip saddr . ip daddr }
			icmpv6 type echo-request add @v6 { ip6 saddr . ip6 daddr }
		}
	}'`)
	// Links and neighbours take their time; what is forwarded is not yet asked.
	for _, gw := range [][2]string{{container, "10.1.0.1"}, {container, "fd00:1::1"}, {other, "10.9.0.1"}, {other, "fd00:9::1"}, {world, "192.0.2.1"}, {world, "2001:db8::1"}} {
		if !answered(gw[0], gw[1]) {
			t.Fatalf("%sping %s: no answer", gw[0], gw[1])
		}
	}
	return container, other, world
}

// answered waits for an echo to come back, for 10 seconds at most.
func answered(from, to string) bool {
	for range 20 {
		if exec.Command("sh", "-c", from+"ping -n -c 1 -W 0.5 "+to).Run() == nil {
			return true
		}
	}
	return false
}

// unanswered reports whether two echoes get lost.
func unanswered(from, to string) bool {
	return exec.Command("sh", "-c", from+"ping -n -c 2 -i 0.1 -W 0.2 "+to).Run() != nil
}

func TestMasqueradeTraffic(t *testing.T) {
	container, other, world := newRouter(t)
	visit := func() string {
		sh(t, world+"nft flush set inet seen v4; "+world+"nft flush set inet seen v6")
		for _, from := range []string{container, other} {
			for _, to := range []string{"192.0.2.2", "10.1.1.2", "2001:db8::2", "fd00:2::2"} {
				if !answered(from, to) {
					t.Errorf("%sping %s: no answer", from, to)
				}
			}
		}
		list := sh(t, world+"nft list set inet seen v4; "+world+"nft list set inet seen v6")
		var seen []string
		for w := range strings.FieldsFuncSeq(list, func(r rune) bool { return strings.ContainsRune("{},\n", r) }) {
			if w = strings.TrimSpace(w); strings.Contains(w, " . ") && !strings.HasPrefix(w, "type") {
				seen = append(seen, w)
			}
		}
		return strings.Join(slices.Sorted(slices.Values(seen)), "\n")
	}
	const as, masqueraded = `10.1.0.2 . 10.1.1.2
10.1.0.2 . 192.0.2.2
10.9.0.2 . 10.1.1.2
10.9.0.2 . 192.0.2.2
fd00:1::2 . 2001:db8::2
fd00:1::2 . fd00:2::2
fd00:9::2 . 2001:db8::2
fd00:9::2 . fd00:2::2`, `10.1.0.2 . 10.1.1.2
10.9.0.2 . 10.1.1.2
10.9.0.2 . 192.0.2.2
192.0.2.1 . 192.0.2.2
2001:db8::1 . 2001:db8::2
fd00:1::2 . fd00:2::2
fd00:9::2 . 2001:db8::2
fd00:9::2 . fd00:2::2`
	if diff := cmp.Diff(as, visit()); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	b := NewBackend("blue")
	ensure(t, b, wanted(blue))
	if diff := cmp.Diff(masqueraded, visit()); diff != "" {
		t.Errorf("masqueraded (-want +got):\n%s", diff)
	}
	prune(t, b, nil)
	if diff := cmp.Diff(as, visit()); diff != "" {
		t.Errorf("pruned (-want +got):\n%s", diff)
	}
}

// closes reports whether a host with this setup drops what goes to an address.
func closes(setup, to string) bool {
	if strings.Contains(to, ":") {
		return strings.Contains(setup, "ip6") || strings.Contains(setup, "inet")
	}
	return !strings.Contains(setup, "iptables -P FORWARD ACCEPT")
}

func TestForwardTraffic(t *testing.T) {
	for _, h := range hosts {
		t.Run(h.name, func(t *testing.T) {
			container, other, _ := newRouter(t)
			sh(t, h.setup)
			dests := []string{"192.0.2.2", "2001:db8::2"}
			for _, d := range dests {
				if closes(h.setup, d) && !unanswered(container, d) {
					t.Errorf("before: ping %s is answered", d)
				}
			}
			b := NewBackend("blue")
			ensure(t, b, wanted(forwardsOf("blue", "obr0", "eth0")...))
			for _, d := range dests {
				if !answered(container, d) {
					t.Errorf("accepted: ping %s: no answer", d)
				}
				if closes(h.setup, d) && !unanswered(other, d) {
					t.Errorf("accepted: another link's ping %s is answered", d)
				}
			}
			prune(t, b, nil)
			for _, d := range dests {
				if closes(h.setup, d) && !unanswered(container, d) {
					t.Errorf("pruned: ping %s is answered", d)
				}
			}
		})
	}
}

// TestGuardTunnels: what is not encrypted of a tunnel's outer packets neither leaves
// for a node nor comes in from it; that some pass where IPsec encrypts them is
// TestIPsec's of test/kernel.
func TestGuardTunnels(t *testing.T) {
	_, other, world := newRouter(t)
	// Behind the guard's chain, which has priority 0.
	sh(t, `nft 'table inet seen { chain in { type filter hook input priority 1;
		meta l4proto udp udp dport 4789 ip saddr 192.0.2.2 counter; meta l4proto udp udp dport 4789 ip6 saddr 2001:db8::2 counter
		meta l4proto udp udp dport 4790 counter; meta l4proto udp udp dport 4789 ip saddr 10.9.0.2 counter; }; }'`)
	sent := func(proto int, to string) string {
		a := netip.MustParseAddr(to)
		family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(a.AsSlice())})
		if a.Is6() {
			family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: a.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW, proto)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		err = unix.Sendto(fd, []byte{0x30, 0x39, 0x12, 0xb5, 0, 9, 0, 0, 'x'}, 0, sa) // UDP to port 4789, without a checksum
		if err != nil && !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d to %s: %t", proto, to, err == nil)
	}
	out := func() string {
		var all []string
		for _, to := range []string{"192.0.2.2", "2001:db8::2", "10.9.0.2"} {
			all = append(all, sent(unix.IPPROTO_GRE, to), sent(unix.IPPROTO_UDP, to))
		}
		return strings.Join(all, ", ")
	}
	in := func() string {
		before := counted(t)
		sh(t, world+`bash -c 'for to in 192.0.2.1 2001:db8::1; do for port in 4789 4790; do echo x >/dev/udp/$to/$port; done; done'; `+
			other+`bash -c 'echo x >/dev/udp/10.9.0.1/4789'`)
		after := counted(t)
		for start := time.Now(); after[2]-before[2] < 2 || after[3] == before[3]; after = counted(t) { // these come last
			if time.Since(start) > 10*time.Second {
				t.Fatalf("what no guard is about does not arrive: %v, then %v", before, after)
			}
		}
		var came []string
		for i := range after {
			came = append(came, fmt.Sprint(after[i]-before[i]))
		}
		return strings.Join(came, " ")
	}
	for _, tt := range []struct{ tunnels, out, in string }{
		{"", "47 to 192.0.2.2: true, 17 to 192.0.2.2: true, 47 to 2001:db8::2: true, 17 to 2001:db8::2: true, " +
			"47 to 10.9.0.2: true, 17 to 10.9.0.2: true", "1 1 2 1"},
		{"gre", "47 to 192.0.2.2: false, 17 to 192.0.2.2: true, 47 to 2001:db8::2: false, 17 to 2001:db8::2: true, " +
			"47 to 10.9.0.2: true, 17 to 10.9.0.2: true", "1 1 2 1"},
		{"udp 4789", "47 to 192.0.2.2: true, 17 to 192.0.2.2: false, 47 to 2001:db8::2: true, 17 to 2001:db8::2: false, " +
			"47 to 10.9.0.2: true, 17 to 10.9.0.2: true", "0 0 2 1"},
	} {
		form := state.Guard{Network: "blue", Link: "obr0-t", Tunnels: tt.tunnels}
		g := form
		if g.Peers = "10.1.1.0/24"; g.Tunnels != "" {
			g.Nodes = "192.0.2.2/32,2001:db8::2/128"
		}
		settleGuardOf(t, form, wanted(g))
		if got := out(); got != tt.out {
			t.Errorf("%q: out\n%s, want\n%s", tt.tunnels, got, tt.out)
		}
		if got := in(); got != tt.in {
			t.Errorf("%q: in %s, want %s", tt.tunnels, got, tt.in)
		}
	}
}

// counted are the counters of table seen, in their order.
func counted(t *testing.T) []int {
	t.Helper()
	var list []int
	for line := range strings.Lines(sh(t, "nft list table inet seen")) {
		if _, rest, is := strings.Cut(line, "counter packets "); is {
			var n int
			_, _ = fmt.Sscan(rest, &n)
			list = append(list, n)
		}
	}
	return list
}
