package hostile

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestStrangersGRE: a stranger on the underlay sends GRE. By its own address
// nothing gets in: each tunnel takes packets of its peer alone. By a peer's
// address all gets in: GRE has no authentication, and docs/security.md says so.
// This holds the statement, in both directions.
func TestStrangersGRE(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	cnitest.Network{}.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	cnitest.AllReach(t, cs)
	first, second := l.Hosts[0], l.Hosts[1]
	to := cs[0].Addr(t, false)
	inner, err := hex.DecodeString(cnitest.Frame(config.MAC(first.Addr4), config.MAC(second.Addr4), cnitest.TypeIPv4, cnitest.UDP(cs[1].Addr(t, false), to, 9999, "from a stranger")))
	if err != nil {
		t.Fatal(err)
	}
	gre := append(binary.BigEndian.AppendUint16([]byte{0, 0}, 0x6558), inner...) // RFC 2784; transparent Ethernet
	dst, src := mac(t, first, first.UnderlayLink), mac(t, l.Underlay, "underlay")
	for _, from := range []struct {
		name string
		addr netip.Addr
		in   bool
	}{{"its own", l.Underlay.Addr4, false}, {"another host's", netip.MustParseAddr("172.16.32.77"), false}, {"the peer's", second.Addr4, true}} {
		at := testnet.CaptureIn(t, cs[0], "eth0", "udp port 9999")
		frame := cnitest.Frame(dst, src, cnitest.TypeIPv4, cnitest.IPv4(from.addr, first.Addr4, 47, gre))
		send(t, l.Underlay, "underlay", frame, frame, frame)
		cnitest.Reach(t, "container 2 to container 1", cs[1], to) // they have passed
		n := len(at.Stop(t))
		figure("underlay: %s datapath: of 3 packets in GRE from a stranger, by %s address, %d reach a container", l.Datapath, from.name, n)
		if from.in != (n > 0) {
			t.Errorf("%d of 3 packets by %s address reach the container, docs/security.md says that none do: %t", n, from.name, !from.in)
		}
	}
}
