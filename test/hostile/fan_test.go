package hostile

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestFanStrangers: where nodes is no list, nothing of a host outside the underlay's
// prefix comes in, nor by this host's own address. A host inside it is a peer, and
// what it says to come from another host's containers comes from its own.
func TestFanStrangers(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	fan := config.Fan{Underlay: netip.MustParsePrefix("172.16.32.96/28"), Containers: netip.MustParsePrefix("10.32.96.0/20")}
	cnitest.Network{OVSGRE: cnitest.Conf{"nodes": cnitest.Conf{"underlay": fan.Underlay.String(), "containers": fan.Containers.String()}}}.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	cnitest.AllReach(t, cs)
	first, to := l.Hosts[0], cs[0].Addr(t, false)
	victim, inside := cs[1].Addr(t, false), netip.MustParseAddr("172.16.32.109")
	dst, src := mac(t, first, first.UnderlayLink), mac(t, l.Underlay, "underlay")
	for _, from := range []struct {
		what        string
		outer, says netip.Addr
		seen        string // the source that the container sees; "" is none
	}{
		{"a stranger", l.Underlay.Addr4, victim, ""},
		{"a stranger beside the prefix", addr("172.16.32.112"), victim, ""},
		{"a stranger beside the prefix, as no container", addr("172.16.32.95"), addr("9.9.9.9"), ""},
		{"one with this host's address", first.Addr4, to.Next(), ""},
		{"a peer, as itself", inside, addr("10.32.109.7"), "10.32.109.7"},
		{"a peer, as another's container", inside, victim, "10.32.109.2"},
		{"a peer, as a container here", inside, to.Next(), "10.32.109.3"},
		{"a peer, as the world outside", inside, addr("9.9.9.9"), "9.9.9.9"},
	} {
		inner, err := hex.DecodeString(cnitest.Frame(config.MAC(first.Addr4), config.MAC(from.outer), cnitest.TypeIPv4, cnitest.UDP(from.says, to, 9999, "from a stranger")))
		if err != nil {
			t.Fatal(err)
		}
		gre := append(binary.BigEndian.AppendUint16([]byte{0, 0}, 0x6558), inner...)
		at := testnet.CaptureIn(t, cs[0], "eth0", "udp port 9999")
		frame := cnitest.Frame(dst, src, cnitest.TypeIPv4, cnitest.IPv4(from.outer, first.Addr4, 47, gre))
		send(t, l.Underlay, "underlay", frame, frame, frame)
		cnitest.Reach(t, "container 2 to container 1", cs[1], to) // they have passed
		lines := at.Stop(t)
		figure("underlay: %s datapath: without a list of nodes, of 3 packets of %s %d reach a container, from %q", l.Datapath, from.what, len(lines), from.seen)
		if (from.seen != "") != (len(lines) > 0) {
			t.Errorf("%d packets of %s came in: %q", len(lines), from.what, lines)
		}
		for _, line := range lines {
			if !strings.Contains(line, " "+from.seen+".9999 >") {
				t.Errorf("%s: %q, want it from %s", from.what, line, from.seen)
			}
		}
	}
}
