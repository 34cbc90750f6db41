package state

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/openflow"
)

// FailSecure is the fail_mode of a bridge that forwards by its flows alone, and
// nothing where it has none (ovs-vswitchd.conf.db(5)).
const FailSecure = "secure"

// OneTunnelPort is the OpenFlow number of the tunnel port that all peers share.
// Flows name it before it is there. It is a choice below OFPP_MAX, 65280.
const OneTunnelPort = 65000

// Flows is the OpenFlow table of the tunnels' bridge where all peers share one
// port: it sends each frame to the peer that it is for, lets in what peers send,
// and drops and counts the rest. It goes with its bridge and with ovs-vswitchd.
type Flows struct {
	Network, Bridge string
	// Peers are the peers' addresses, each with its container subnets behind it,
	// joined by commas.
	Peers string `says:"peers"`
	// Fan stands for the peers where no list has them, and Self is this host's
	// address then; zero where Peers has them.
	Fan  config.Fan `says:"nodes"`
	Self netip.Addr `says:"address"`
	// Wrong is what the table has otherwise; wanted is "".
	Wrong string `fault:""`
}

func (f Flows) ID() ID       { return ID{KindFlows, f.Bridge} }
func (f Flows) Noun() string { return "OpenFlow table of " + f.Bridge }

// String is the command that replaces the table by this one.
func (f Flows) String() string {
	var b strings.Builder
	b.WriteString(`printf '%s\n'`)
	cookie := f.Cookie() // each time it goes through all peers
	for _, flow := range f.Table() {
		fmt.Fprintf(&b, " 'cookie=%#x,%s'", cookie, flow)
	}
	fmt.Fprintf(&b, " | ovs-ofctl -O OpenFlow14 --bundle replace-flows %s -", f.Bridge)
	return b.String() + complaint(f.Wrong)
}

// Cookie is the number that each of the flows carries: it tells this table from
// any other.
func (f Flows) Cookie() uint64 {
	// The form of the table is a part of it: another version's is another table.
	h := sha256.New()
	peers := f.Peers
	if !f.Fan.IsZero() {
		peers = f.Fan.String() + " " + f.Self.String()
	}
	var piece [4096]byte // of thousands of peers, for which no copy is made
	for _, s := range []string{"1 ", f.Bridge, " ", peers} {
		for len(s) > 0 {
			n := copy(piece[:], s)
			_, _ = h.Write(piece[:n]) // never fails
			s = s[n:]
		}
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// Count is how many flows Table returns.
func (f Flows) Count() int {
	if !f.Fan.IsZero() {
		return 7
	}
	n := 1 + strings.Count(f.Peers, " ")
	if f.Peers == "" {
		return n
	}
	peers := strings.Count(f.Peers, ",") + 1
	if f.six() {
		return n + 2*peers
	}
	return n + 1 + peers
}

// six reports whether the underlay is IPv6: all nodes use one family.
func (f Flows) six() bool {
	first, _, _ := strings.Cut(f.Peers, " ")
	return strings.Contains(first, ":")
}

// Strangers matches what comes by the port that all peers share; the only flow
// of the table that names it drops and counts what no peer has sent.
func Strangers() openflow.Match { return openflow.Match{InPort: OneTunnelPort} }

// Priorities of the flows. Each peer's are for that peer alone.
const (
	priorityStrangers = 1
	priorityPeers     = 2
	priorityOwn       = 3
	priorityNever     = 4
)

// toTunDst sends a frame where its transit MAC says, which is the IPv4 address itself:
// see config.MAC.
var toTunDst = openflow.Move{From: openflow.EthDst, To: openflow.TunDst, NumBits: 32}

// fan returns the flows where no list has the peers. OVS cannot compare two fields, but
// it can write one into the other: the bits of an address that tell hosts apart become
// those of the peer that a packet is for, and of the container subnet that it can be from.
func (f Flows) fan() []openflow.Flow {
	bits, behind := f.Fan.HostBits(), 32-f.Fan.SubnetBits()
	own, _ := f.Fan.Node(f.Self)
	toPeer, any := openflow.ToMAC(openflow.ParseMAC(config.MAC(f.Fan.Underlay.Addr()))), openflow.ToMAC(openflow.ParseMAC(config.AnyPeerMAC))
	known := openflow.Match{InPort: openflow.Local, EthDst: toPeer.EthDst, EthDstMask: openflow.MAC{0xff, 0xff}}
	copy(known.EthDstMask[2:], net.CIDRMask(f.Fan.Underlay.Bits(), 32))
	any.InPort, any.IPDst = openflow.Local, f.Fan.Containers
	from := openflow.Match{TunSrc: f.Fan.Underlay}
	inside := openflow.Match{TunSrc: f.Fan.Underlay, IPSrc: f.Fan.Containers}
	return []openflow.Flow{
		{Priority: priorityStrangers, Match: Strangers()},
		{Priority: priorityPeers, Match: known, Moves: []openflow.Move{toTunDst}, Output: OneTunnelPort},
		{Priority: priorityPeers, Match: any, SetEthDst: toPeer.EthDst,
			Moves: []openflow.Move{{From: openflow.IPDst, To: openflow.EthDst, FromBit: behind, NumBits: bits}, toTunDst}, Output: OneTunnelPort},
		{Priority: priorityPeers, Match: from, Output: openflow.Local},
		{Priority: priorityOwn, Match: inside,
			Moves: []openflow.Move{{From: openflow.TunSrc, To: openflow.IPSrc, ToBit: behind, NumBits: bits}}, Output: openflow.Local},
		// What is for this host's own containers would come back for ever, and
		// nobody else has its address.
		{Priority: priorityNever, Match: openflow.Match{InPort: openflow.Local, IPDst: own.Subnets[0]}},
		{Priority: priorityNever, Match: openflow.Match{TunSrc: netip.PrefixFrom(f.Self, 32)}},
	}
}

// Table returns the flows. What is for a peer's transit MAC goes to that peer,
// and so does what is for AnyPeerMAC and one of its subnets.
func (f Flows) Table() []openflow.Flow {
	if !f.Fan.IsZero() {
		return f.fan()
	}
	flows := make([]openflow.Flow, 0, f.Count())
	out := func(m openflow.Match) openflow.Flow {
		m.InPort = openflow.Local
		return openflow.Flow{Priority: priorityPeers, Match: m, Output: OneTunnelPort}
	}
	flows = append(flows, openflow.Flow{Priority: priorityStrangers, Match: Strangers()})
	if f.Peers != "" && !f.six() {
		all := out(openflow.Match{EthDst: openflow.MAC{0x0a, 0x58}, EthDstMask: openflow.MAC{0xff, 0xff}})
		all.Moves = []openflow.Move{toTunDst}
		flows = append(flows, all)
	}
	for peer := range strings.SplitSeq(f.Peers, ",") {
		words := strings.Fields(peer)
		if len(words) == 0 {
			continue
		}
		address, _ := netip.ParseAddr(words[0])
		mac := openflow.ParseMAC(config.MAC(address))
		from := openflow.Match{TunSrc: netip.PrefixFrom(address, address.BitLen())}
		flows = append(flows, openflow.Flow{Priority: priorityPeers, Match: from, Output: openflow.Local})
		if f.six() {
			to := out(openflow.ToMAC(mac))
			to.TunDst = address
			flows = append(flows, to)
		}
		for _, subnet := range words[1:] {
			m := openflow.ToMAC(openflow.ParseMAC(config.AnyPeerMAC))
			m.IPDst, _ = netip.ParsePrefix(subnet)
			to := out(m)
			to.SetEthDst, to.TunDst = mac, address
			flows = append(flows, to)
		}
	}
	return flows
}

// oneTunnel is the port of all peers and the table that goes with it.
func oneTunnel(c *config.Network, m nodes.Topology) []Object {
	t := TunnelTo(c, m, config.Node{Address: m.Self.Address})
	t.Name, t.Remote, t.OFPort = config.OneTunnelName(c.Name), netip.Addr{}, OneTunnelPort
	if !m.Fan.IsZero() {
		return []Object{t, Flows{Network: c.Name, Bridge: t.Bridge, Fan: m.Fan, Self: m.Self.Address}}
	}
	var b strings.Builder
	b.Grow(32 * len(m.Peers)) // an IPv4 address and a subnet
	var buf [128]byte
	for i, p := range m.Peers {
		if i > 0 {
			b.WriteByte(',')
		}
		_, _ = b.Write(p.Address.AppendTo(buf[:0])) // never fails
		for _, s := range p.Subnets {
			_, _ = b.Write(s.AppendTo(append(buf[:0], ' '))) // never fails
		}
	}
	return []Object{t, Flows{Network: c.Name, Bridge: t.Bridge, Peers: b.String()}}
}
