package firewall_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/test/cnitest"
)

// bench is a port og1 of a bridge br0, whose other end c0 sends what a container
// would, and a socket that gets what br0 gets.
type bench struct {
	t            *testing.T
	send, listen int
	out          unix.SockaddrLinklayer
	gateway      string // br0's MAC
}

const (
	ownMAC   = "02:00:00:00:00:0a"
	otherMAC = "02:00:00:00:00:0b"
)

var (
	own4, other4 = netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.0.3")
	own6, other6 = netip.MustParseAddr("fd00:1::2"), netip.MustParseAddr("fd00:1::3")
	router4      = netip.MustParseAddr("10.1.0.1")
	all6         = netip.MustParseAddr("ff02::1")
)

func newBench(t *testing.T) *bench {
	firewall.NewNetns(t, "ip", "nft")
	script := `ip link add br0 address 02:00:00:00:00:01 type bridge mcast_snooping 0
		ip link add og1 master br0 type veth peer name c0 address ` + ownMAC + `
		for l in br0 og1 c0; do echo 1 >/proc/sys/net/ipv6/conf/$l/disable_ipv6; ip link set $l addrgenmode none up; done`
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b := &bench{t: t, gateway: "02:00:00:00:00:01"}
	socket := func(link string, proto uint16) int {
		i, err := net.InterfaceByName(link)
		if err != nil {
			t.Fatal(err)
		}
		be := proto<<8 | proto>>8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(be))
		if err == nil {
			b.out = unix.SockaddrLinklayer{Ifindex: i.Index, Protocol: be}
			err = unix.Bind(fd, &b.out)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	b.listen = socket("br0", unix.ETH_P_ALL)
	if err := unix.SetsockoptTimeval(b.listen, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	b.send = socket("c0", 0)
	return b
}

// frame is one that br0 takes for itself.
func (b *bench) frame(src string, etherType uint16, payload []byte, tags ...cnitest.Tag) string {
	return cnitest.Frame(b.gateway, src, etherType, payload, tags...)
}

// passes sends a frame, and after it one that passes always.
func (b *bench) passes(frame string) bool {
	b.t.Helper()
	end := b.frame(ownMAC, cnitest.TypeARP, append(cnitest.ARP(1, ownMAC, own4, router4), "the end"...))
	for _, f := range []string{frame, end} {
		raw, err := hex.DecodeString(f)
		if err == nil {
			err = unix.Sendto(b.send, raw, 0, &b.out)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	got := make([]byte, 2000)
	for n := 0; ; n++ {
		size, _, err := unix.Recvfrom(b.listen, got, 0)
		if err != nil {
			b.t.Fatalf("the frame that passes always: %v", err)
		}
		if bytes.Contains(got[:size], []byte("the end")) {
			return n > 0
		}
	}
}

// TestSpoofCheck sends what a container may send, and what it may not.
func TestSpoofCheck(t *testing.T) {
	b := newBench(t)
	s := firewall.SpoofCheck{Network: "n", Port: "og1", MAC: ownMAC, Addrs: []netip.Addr{own4, own6}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	own := config.LinkLocal(ownMAC)
	none6 := netip.IPv6Unspecified()
	arp := func(src, sender string, ip netip.Addr) string {
		return b.frame(src, cnitest.TypeARP, cnitest.ARP(1, sender, ip, router4))
	}
	v6 := func(payload []byte) string { return b.frame(ownMAC, cnitest.TypeIPv6, payload) }
	behind := func(packet []byte) []byte { // an empty header of destination options between IPv6 and ICMPv6
		out := append([]byte{}, packet[:40]...)
		out[5], out[6] = out[5]+8, 60
		return append(append(out, 58, 0, 1, 4, 0, 0, 0, 0), packet[40:]...)
	}
	ra := cnitest.RouterAdvertisement(own, ownMAC, 1800, netip.MustParsePrefix("2001:db8::/64"))
	unasked := func(target netip.Addr, mac string) []byte { return cnitest.NeighbourAdvertisement(own6, target, mac) }
	for _, tt := range []struct {
		name  string
		frame string
		pass  bool
	}{
		{"ARP request", arp(ownMAC, ownMAC, own4), true},
		{"ARP probe", arp(ownMAC, ownMAC, netip.IPv4Unspecified()), true},
		{"IPv4", b.frame(ownMAC, cnitest.TypeIPv4, cnitest.UDP(own4, router4, 9, "x")), true},
		{"DHCP without an address", b.frame(ownMAC, cnitest.TypeIPv4, cnitest.UDP(netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), 67, "x")), true},
		{"IPv6", v6(cnitest.UDP(own6, all6, 9, "x")), true},
		{"IPv6, link-local", v6(cnitest.UDP(own, all6, 9, "x")), true},
		{"duplicate address detection", v6(cnitest.ICMPv6(none6, all6, 135, append([]byte{0, 0, 0, 0}, own6.AsSlice()...)...)), true},
		{"duplicate address detection with a nonce", v6(cnitest.ICMPv6(none6, all6, 135, append(append([]byte{0, 0, 0, 0}, own6.AsSlice()...), 14, 1, 1, 2, 3, 4, 5, 6)...)), true},
		{"multicast listener report without an address", v6(cnitest.ICMPv6(none6, all6, 143, 0, 0, 0, 0)), true},
		{"neighbour solicitation", v6(cnitest.NeighbourSolicitation(own6, other6, ownMAC)), true},
		{"neighbour advertisement", v6(unasked(own6, ownMAC)), true},
		{"router solicitation", v6(cnitest.ICMPv6(own, all6, 133, append([]byte{0, 0, 0, 0, 1, 1}, 2, 0, 0, 0, 0, 10)...)), true},
		{"a VLAN's", b.frame(ownMAC, cnitest.TypeIPv4, cnitest.UDP(own4, router4, 9, "x"), cnitest.Tag{TPID: 0x8100, VLAN: 0}), true},

		{"another's MAC address", arp(otherMAC, ownMAC, own4), false},
		{"another's MAC address, IPv6", b.frame(otherMAC, cnitest.TypeIPv6, cnitest.UDP(own6, all6, 9, "x")), false},
		{"another's MAC address, neither", b.frame(otherMAC, 0x88b5, []byte("x")), false},
		{"ARP sender's MAC address", arp(ownMAC, otherMAC, own4), false},
		{"ARP sender's IP address", arp(ownMAC, ownMAC, other4), false},
		{"ARP reply for another", b.frame(ownMAC, cnitest.TypeARP, cnitest.ARP(2, ownMAC, other4, router4)), false},
		{"IPv4 source", b.frame(ownMAC, cnitest.TypeIPv4, cnitest.UDP(other4, router4, 9, "x")), false},
		{"IPv4 source, outside", b.frame(ownMAC, cnitest.TypeIPv4, cnitest.UDP(netip.MustParseAddr("8.8.8.8"), router4, 9, "x")), false},
		{"IPv4 source, tagged", b.frame(ownMAC, cnitest.TypeIPv4, cnitest.UDP(other4, router4, 9, "x"), cnitest.Tag{TPID: 0x8100, VLAN: 0}), false},
		{"IPv4 source, tagged twice", b.frame(ownMAC, cnitest.TypeIPv4, cnitest.UDP(other4, router4, 9, "x"), cnitest.Tag{TPID: 0x88a8, VLAN: 0}, cnitest.Tag{TPID: 0x8100, VLAN: 0}), false},
		{"no IPv4 source, not DHCP", b.frame(ownMAC, cnitest.TypeIPv4, cnitest.UDP(netip.IPv4Unspecified(), router4, 9, "x")), false},
		{"IPv6 source", v6(cnitest.UDP(other6, all6, 9, "x")), false},
		{"IPv6 source, link-local", v6(cnitest.UDP(config.LinkLocal(otherMAC), all6, 9, "x")), false},
		{"no IPv6 source, not ICMPv6", v6(cnitest.UDP(none6, all6, 9, "x")), false},
		{"detection of another's address", v6(cnitest.ICMPv6(none6, all6, 135, append([]byte{0, 0, 0, 0}, other6.AsSlice()...)...)), false},
		{"solicitation with another's MAC address", v6(cnitest.NeighbourSolicitation(own6, other6, otherMAC)), false},
		{"advertisement of another's address", v6(unasked(other6, ownMAC)), false},
		{"advertisement with another's MAC address", v6(unasked(own6, otherMAC)), false},
		{"advertisement behind a header", v6(behind(unasked(other6, ownMAC))), false},
		{"advertisement with a second option", v6(cnitest.ICMPv6(own6, all6, 136, append(append([]byte{0x20, 0, 0, 0}, own6.AsSlice()...), 14, 1, 0, 0, 0, 0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 11)...)), false},
		{"router advertisement", v6(ra), false},
		{"router advertisement behind a header", v6(behind(ra)), false},
		{"redirect", v6(cnitest.ICMPv6(own, all6, 137, make([]byte, 36)...)), false},
	} {
		// No test of its own: that would be another thread, in another namespace.
		if err := firewall.DelAllSpoofChecks(ctx, "n"); err != nil {
			t.Fatal(err)
		}
		if !b.passes(tt.frame) {
			t.Errorf("%s: does not even pass without a check", tt.name)
		}
		for range 2 { // twice is as good as once
			if err := s.Add(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if got := b.passes(tt.frame); got != tt.pass {
			t.Errorf("%s: passes: %t, want %t", tt.name, got, tt.pass)
		}
	}
	if err := (firewall.SpoofCheck{Network: "n", Port: "og1", MAC: ownMAC}).Add(ctx); err != nil {
		t.Fatal(err)
	}
	if !b.passes(arp(ownMAC, ownMAC, other4)) || b.passes(arp(otherMAC, ownMAC, other4)) {
		t.Error("without addresses not the MAC address, and that alone, is looked at")
	}
}

// TestSpoofCheckStands: what is missing, flushed or of another address is seen;
// what is deleted twice is gone.
func TestSpoofCheckStands(t *testing.T) {
	newBench(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := firewall.SpoofCheck{Network: "n", Port: "og1", MAC: ownMAC, Addrs: []netip.Addr{own4, own6}}
	stands := func(want bool, when string) {
		t.Helper()
		if got, err := s.Exists(ctx); got != want || err != nil {
			t.Errorf("%s: stands %t, %v, want %t", when, got, err, want)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	stands(false, "before")
	must(s.Add(ctx))
	stands(true, "after Add")
	s.Addrs = []netip.Addr{own6, own4}
	stands(true, "in another order")
	run("nft", "flush", "chain", "netdev", "ovs-gre-n", "og1")
	stands(false, "after a flush")
	must(s.Add(ctx))
	stands(true, "after Add again")
	s.Addrs = []netip.Addr{other4}
	stands(false, "with another address")
	must(firewall.DelSpoofChecks(ctx, "n", "og1", "og2"))
	must(firewall.DelSpoofChecks(ctx, "n", "og1"))
	stands(false, "after Del")
	must(s.Add(ctx))
	run("ip", "link", "delete", "og1")
	run("sh", "-ec", "ip link add og1 type veth peer name c0; ip link set og1 up")
	must(s.Add(ctx)) // a container that comes back
	stands(true, "after its link came back")
	must(firewall.DelAllSpoofChecks(ctx, "n"))
	must(firewall.DelAllSpoofChecks(ctx, "n"))
	if out := run("nft", "list", "ruleset"); strings.Contains(out, "ovs-gre-n") {
		t.Errorf("left: %s", out)
	}
}

// BenchmarkSpoofCheck is what ADD of a container pays.
func BenchmarkSpoofCheck(b *testing.B) {
	firewall.NewNetns(b, "ip", "nft")
	if out, err := exec.Command("sh", "-ec", "ip link add og1 type veth peer name c0; ip link set og1 up").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	s := firewall.SpoofCheck{Network: "n", Port: "og1", MAC: ownMAC, Addrs: []netip.Addr{own4, own6}}
	for b.Loop() {
		if err := s.Add(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := firewall.DelAllSpoofChecks(context.Background(), "n"); err != nil {
			b.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // the kernel's own clearing up, which nothing announces
		b.StartTimer()
	}
}
