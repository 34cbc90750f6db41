package hostile

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

const udpProtocol = 17

// sealed makes an encrypted network whose keys are these; nil is that each host knows
// each other's.
func sealed(t *testing.T, l *testnet.Lab, on []*testnet.Host, keys map[string]string) {
	t.Helper()
	n := cnitest.Network{Subnets: only4, OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"type": "wireguard"}}}
	if keys == nil {
		n.Install(t, l)
		for _, h := range on {
			cnitest.StartWireGuard(t, h, "ovsnet", "obr0")
		}
		keys = cnitest.Keys(t, on)
	}
	n.OVSGRE["nodes"] = n.Keyed(l, keys)
	for _, h := range on {
		h.WriteFile(t, "/etc/cni/net.d/10-ovsnet.conflist", n.Conflist(l))
	}
}

// recorded are the frames that pass the underlay while f runs, from one host to the
// other's WireGuard, as many as most.
func recorded(t *testing.T, l *testnet.Lab, from, to *testnet.Host, most int, f func()) []string {
	t.Helper()
	cmd := l.Underlay.Command(context.Background(), "tcpdump", "-Z", "root", "-i", "underlay", "-nn", "-t", "-l", "--immediate-mode", "-xx",
		"-c", fmt.Sprint(most), fmt.Sprintf("src %s and dst %s and udp dst port 51820", from.Addr4, to.Addr4))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(said); in.Scan() && !strings.HasPrefix(in.Text(), "listening on "); {
	}
	f()
	var frames []string
	for in := bufio.NewScanner(out); in.Scan(); {
		_, digits, isHex := strings.Cut(in.Text(), ":  ")
		if !isHex || !strings.HasPrefix(in.Text(), "\t0x") {
			frames = append(frames, "")
			continue
		}
		frames[len(frames)-1] += strings.ReplaceAll(digits, " ", "")
	}
	if err := cmd.Wait(); err != nil || len(frames) != most {
		t.Fatalf("tcpdump: %v: %d frames, want %d", err, len(frames), most)
	}
	return frames
}

// TestStrangersWireGuard: a stranger on the underlay who has recorded what two hosts send
// to each other, who sends by a host's address, or who has a key that is in no
// list, brings nothing into a container, and takes no session away.
func TestStrangersWireGuard(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	sealed(t, l, l.Hosts, nil)
	cs := cnitest.AddAll(t, l, "ovsnet")
	first, second := l.Hosts[0], l.Hosts[1]
	to := cs[0].Addr(t, false)

	// With the handshake: it is the first packet from the second host.
	arrived := testnet.CaptureIn(t, cs[0], "eth0", "udp port 9999")
	frames := recorded(t, l, second, first, 4, func() {
		for range 10 { // some may be lost while there is no session
			cs[1].Run(t, "bash", "-c", "echo octarine >/dev/udp/"+to.String()+"/9999")
		}
		cnitest.Reach(t, "container 2 to container 1", cs[1], to)
	})
	if n := len(arrived.Stop(t)); n == 0 {
		t.Fatal("no datagram has arrived")
	}
	dst, src := mac(t, first, first.UnderlayLink), mac(t, l.Underlay, "underlay")
	bySomebody := func(payload []byte, from netip.Addr) string {
		return cnitest.Frame(dst, src, cnitest.TypeIPv4, cnitest.IPv4(from, first.Addr4, udpProtocol, payload))
	}
	var moved, forged []string
	for _, f := range frames {
		raw, err := hex.DecodeString(f)
		if err != nil || len(raw) < 14+20+8+16 {
			t.Fatalf("frame %s: %v", f, err)
		}
		datagram := raw[14+20:]         // behind Ethernet's header and IPv4's
		datagram[6], datagram[7] = 0, 0 // no checksum (RFC 768): it has the old source
		moved = append(moved, bySomebody(datagram, netip.MustParseAddr("172.16.32.77")))
		other := append([]byte(nil), datagram...)
		other[len(other)-1] ^= 1 // one bit of the tag
		forged = append(forged, bySomebody(other, second.Addr4))
	}
	for _, attack := range []struct {
		name   string
		frames []string
	}{
		{"recorded and sent again", frames},
		{"recorded and sent again from another address", moved},
		{"changed by a bit, from the peer's address", forged},
	} {
		inside := testnet.CaptureIn(t, cs[0], "eth0", "udp port 9999")
		wire := testnet.CaptureIn(t, first, first.UnderlayLink, "udp dst port 51820")
		send(t, l.Underlay, "underlay", attack.frames...)
		cnitest.Reach(t, "container 2 to container 1", cs[1], to) // they have passed
		cnitest.Reach(t, "container 1 to container 2", cs[0], cs[1].Addr(t, false))
		seen, n := len(wire.Stop(t)), len(inside.Stop(t))
		figure("underlay: WireGuard: of %d packets %s, %d reach a container", len(attack.frames), attack.name, n)
		if n > 0 || seen < len(attack.frames) {
			t.Errorf("%s: %d reach the container, %d were on the wire", attack.name, n, seen)
		}
	}
	if err := cs[0].Call("check"); err != nil {
		t.Errorf("CHECK: %v", err)
	}
}

// TestStrangersKey: a host that is in the list with another key than it has, or
// that says it was another, is heard by nobody.
func TestStrangersKey(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	sealed(t, l, l.Hosts, nil)
	keys := cnitest.Keys(t, l.Hosts)
	stranger := l.Hosts[2]
	listed := maps.Clone(keys)
	listed[stranger.Name] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	sealed(t, l, l.Hosts[:2], listed)
	cs := cnitest.AddAll(t, l, "ovsnet")
	cnitest.AllReach(t, cs[:2])
	heard := func(what string) {
		t.Helper()
		inside := testnet.CaptureIn(t, cs[0], "eth0", "src net 192.168.3.0/24")
		if lost, err := cnitest.Unreached(cs[2], cs[0].Addr(t, false)); err != nil || len(lost) == 0 {
			t.Errorf("%s: the stranger is answered: %v %v", what, lost, err)
		}
		if lines := inside.Stop(t); len(lines) > 0 {
			t.Errorf("%s: %s", what, lines[0])
		}
		cnitest.AllReach(t, cs[:2])
	}
	heard("with another key")
	// It takes the second host's address and subnets, with the key that it has.
	stranger.Run(t, "ip", "address", "add", l.Hosts[1].Addr4.String()+"/32", "dev", "lo")
	heard("with another's address")
	figure("underlay: WireGuard: a host with a key that is not in the list is answered by none")
}
