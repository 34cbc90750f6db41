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

// maxSources is the most CIDRs of a Forward's From, a choice: each makes a rule for each
// subnet of this host.
const maxSources = 64

// Forwards returns the accepts that a network needs on a host that drops forwarded
// packets: from the containers to anywhere, back to them for established connections,
// and from the peers' containers. Desired contains them, too.
func Forwards(c *config.Network, m nodes.Topology) []Object {
	return forwards(c, m, mergedSubnets(m.Holders()))
}

func forwards(c *config.Network, m nodes.Topology, peers [2][]netip.Prefix) []Object {
	gw, in := GatewayLink(c), ""
	switch {
	case c.Tunnel.Type == config.TunnelNone: // nothing comes in by a link of ours
	case Encrypted(c):
		in = config.WireGuardName(c.Bridge)
	case UsesTunnelBridge(c):
		in = TunnelBridge(c)
	case c.LinuxBridge != "":
		// Where br_netfilter is loaded, frames from port to port of the Linux
		// bridge pass the forward chains, too.
		in = gw
	}
	var objs []Object
	for i, v6 := range []bool{false, true} {
		own := cidrList(ofFamily(m.Self.Subnets, v6))
		if own == "" {
			continue
		}
		objs = append(objs,
			Forward{Network: c.Name, In: gw, From: own},
			Forward{Network: c.Name, Out: gw, To: own, Answers: true},
		)
		if from := sourceList(peers[i]); in != "" && from != "" {
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
		if w.Underlay == "" && gw == "" { // both links are unknown: one accept for both directions
			both := sourceList(append(slices.Clone(ofFamily(m.Self.Subnets, v6)), ofFamily(theirs, v6)...))
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

// ofFamily returns the subnets of a family, or the list itself where it has no others.
func ofFamily(list []netip.Prefix, v6 bool) []netip.Prefix {
	n := 0
	for _, p := range list {
		if p.Addr().Is6() == v6 {
			n++
		}
	}
	if n == len(list) {
		return list
	}
	of := make([]netip.Prefix, 0, n)
	for _, p := range list {
		if p.Addr().Is6() == v6 {
			of = append(of, p)
		}
	}
	return of
}

// mergedSubnets returns the fewest CIDRs that hold the addresses of the nodes' subnets,
// those of IPv4 and those of IPv6.
func mergedSubnets(nodes []config.Node) [2][]netip.Prefix {
	all := subnets(nodes)
	return [2][]netip.Prefix{merge(ofFamily(all, false)), merge(ofFamily(all, true))}
}

// sourceList returns the fewest CIDRs of one family that hold the same addresses, joined
// by commas; if these are more than maxSources, it widens some until they are not.
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

// merge returns the fewest CIDRs that hold the same addresses, sorted. The list may
// be one of thousands.
func merge(list []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	if !slices.IsSortedFunc(list, netip.Prefix.Compare) {
		list = slices.Clone(list)
		slices.SortFunc(list, netip.Prefix.Compare)
	}
	for _, p := range list {
		if n := len(out); n > 0 && out[n-1].Contains(p.Addr()) {
			continue // sorted, the wider is first
		}
		out = append(out, p)
		for n := len(out); n > 1 && out[n-2].Bits() == out[n-1].Bits(); n = len(out) {
			wider := netip.PrefixFrom(out[n-2].Addr(), out[n-2].Bits()-1)
			if !wider.Contains(out[n-1].Addr()) {
				break
			}
			out = append(out[:n-2], wider.Masked())
		}
	}
	return out
}

// cover replaces neighbours of a sorted list by the narrowest CIDR that holds both,
// those with the most common bits first, until n are left.
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

// commonBits returns the number of leading bits that two CIDRs of one family share.
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
