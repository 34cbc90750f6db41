package state

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// maxSources is how many CIDRs a Forward has at most as source: each makes a
// rule for each subnet of this host. It is a choice.
const maxSources = 64

// Forwards returns the accepts that a network needs of a host that drops what
// it forwards: from the containers outward, back in what belongs to a
// connection, and from the peers' containers in. Desired has them, too.
func Forwards(c *config.Network, m nodes.Topology) []Object {
	gw, peers := GatewayLink(c), subnets(m.Peers)
	in := ""
	switch {
	case c.Tunnel.Type == config.TunnelNone: // nothing comes in by a link of ours
	case Encrypted(c):
		in = config.WireGuardName(c.Bridge)
	case UsesTunnelBridge(c):
		in = TunnelBridge(c)
	case c.LinuxBridge != "":
		// What this Linux bridge passes from port to port meets the chains,
		// too, where br_netfilter is loaded.
		in = gw
	}
	var objs []Object
	for _, v6 := range []bool{false, true} {
		own := cidrList(ofFamily(m.Self.Subnets, v6))
		if own == "" {
			continue
		}
		objs = append(objs,
			Forward{Network: c.Name, In: gw, From: own},
			Forward{Network: c.Name, Out: gw, To: own, Answers: true},
		)
		if from := sourceList(ofFamily(peers, v6)); in != "" && from != "" {
			objs = append(objs, Forward{Network: c.Name, In: in, Out: gw, From: from, To: own})
		}
	}
	return objs
}

// directForwards are the accepts of routes without a tunnel: between this host's
// subnets and those of the peers that are routed so. A peer's containers may
// come with its host's address: Docker masquerades them.
func directForwards(c *config.Routes, m nodes.Topology, peers []config.Node, w NextHops) []Object {
	theirs := subnets(peers)
	for _, p := range peers {
		theirs = append(theirs, netip.PrefixFrom(p.Address, p.Address.BitLen()))
	}
	var objs []Object
	for _, v6 := range []bool{false, true} {
		own, others := cidrList(ofFamily(m.Self.Subnets, v6)), sourceList(ofFamily(theirs, v6))
		if own == "" || others == "" {
			continue
		}
		gw := w.Gateway4
		if v6 {
			gw = w.Gateway6
		}
		if w.Underlay == "" && gw == "" { // no links tell the directions apart
			both := sourceList(append(ofFamily(m.Self.Subnets, v6), ofFamily(theirs, v6)...))
			objs = append(objs, Forward{Network: c.Name, Routes: true, From: both, To: both})
			continue
		}
		objs = append(objs,
			Forward{Network: c.Name, Routes: true, In: w.Underlay, Out: gw, From: others, To: own},
			Forward{Network: c.Name, Routes: true, In: gw, Out: w.Underlay, From: own, To: others},
		)
	}
	return objs
}

func subnets(nodes []config.Node) []netip.Prefix {
	list := make([]netip.Prefix, 0, len(nodes))
	for _, n := range nodes {
		list = append(list, n.Subnets...)
	}
	return list
}

func ofFamily(list []netip.Prefix, v6 bool) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool { return p.Addr().Is6() != v6 })
}

// sourceList joins CIDRs of one family by commas: halves of one are joined,
// and if there are more than maxSources then, the narrowest that cover them.
func sourceList(list []netip.Prefix) string {
	merged := merge(list)
	if len(merged) > maxSources {
		merged = merge(cover(merged, maxSources))
	}
	s := make([]string, len(merged))
	for i, p := range merged {
		s[i] = p.String()
	}
	return strings.Join(s, ",")
}

// merge returns the fewest CIDRs, sorted, that hold the same addresses.
func merge(list []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	list = slices.Clone(list)
	slices.SortFunc(list, netip.Prefix.Compare)
	for _, p := range list {
		if n := len(out); n > 0 && out[n-1].Overlaps(p) {
			continue // sorted, the wider is first
		}
		out = append(out, p)
		for n := len(out); n > 1; n = len(out) {
			wider := netip.PrefixFrom(out[n-1].Addr(), out[n-1].Bits()-1).Masked()
			if out[n-2].Bits() != out[n-1].Bits() || !wider.Contains(out[n-2].Addr()) {
				break
			}
			out = append(out[:n-2], wider)
		}
	}
	return out
}

// cover joins neighbours of a sorted list, those first that have most bits in
// common, until n are left.
func cover(list []netip.Prefix, n int) []netip.Prefix {
	nearest := make([]int, len(list)-1) // i stands for list[i] and list[i+1]
	for i := range nearest {
		nearest[i] = i
	}
	slices.SortStableFunc(nearest, func(a, b int) int {
		return cmp.Compare(commonBits(list[b], list[b+1]), commonBits(list[a], list[a+1]))
	})
	joined := make([]bool, len(list))
	for _, i := range nearest[:len(list)-n] {
		joined[i+1] = true
	}
	var out []netip.Prefix
	for i, p := range list {
		if joined[i] {
			p = netip.PrefixFrom(p.Addr(), commonBits(out[len(out)-1], p)).Masked()
			out = out[:len(out)-1]
		}
		out = append(out, p)
	}
	return out
}

// commonBits is how many leading bits two CIDRs of one family share.
func commonBits(a, b netip.Prefix) int {
	n := min(a.Bits(), b.Bits())
	x, y := a.Addr().AsSlice(), b.Addr().AsSlice()
	for i := range x {
		if diff := x[i] ^ y[i]; diff != 0 {
			return min(n, 8*i+bits.LeadingZeros8(diff))
		}
	}
	return n
}
