package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"ovs-gre-cni/pkg/filter"
	"ovs-gre-cni/pkg/spec"
	"ovs-gre-cni/pkg/state"
)

// forwardFilter looks whether this host drops what it forwards for containers.
func forwardFilter(ctx context.Context, p *patient) []Finding {
	var list []Finding
	for _, n := range p.nets {
		if n.gateway == "" {
			continue
		}
		want := state.Set{}
		f := state.Forward{Network: n.Name(), Dev: n.gateway}
		want.Put(f)
		have, err := filter.NewBackend(n.Name()).Observe(ctx, want)
		switch _, there := have[f.ID()]; {
		case err != nil:
			list = append(list, blind(n.Name(), err))
		case there:
			list = append(list, ok(n.Name(), "what %s forwards is not dropped by default", n.gateway))
		case n.OVS != nil:
			list = append(list, fail(n.Name(), n.mend("up"), "this host drops what it forwards (policy DROP), and nothing accepts what %s forwards", n.gateway))
		default:
			list = append(list, fail(n.Name(), f.String(), "this host drops what it forwards (policy DROP), and nothing accepts what %s forwards", n.gateway))
		}
	}
	return list
}

func inputChain(c *nftables.Chain) bool {
	return c.Type == nftables.ChainTypeFilter && *c.Hooknum == *nftables.ChainHookInput && c.Table.Family != nftables.TableFamilyNetdev
}

// tunnelInput looks whether this host takes its peers' tunnel packets. On the
// userspace datapath they do not pass the kernel's filter.
func tunnelInput(_ context.Context, p *patient) []Finding {
	var list []Finding
	var rules *ruleset
	for _, n := range p.nets {
		if !n.tunnels() || n.meshErr != nil || len(n.mesh.Peers) == 0 {
			continue
		}
		if n.netdev {
			list = append(list, ok(n.Name(), "not filtered on the userspace datapath"))
			continue
		}
		if rules == nil {
			var err error
			if rules, err = readRuleset(inputChain); err != nil {
				return append(list, blind("", err))
			}
			list = append(list, oldTables("filter", "INPUT")...)
		}
		list = append(list, n.tunnelInput(rules))
	}
	return list
}

func (n *net) tunnelInput(rules *ruleset) Finding {
	proto, port := n.protocol()
	what := "GRE (IP protocol 47)"
	if proto == protoUDP {
		what = "UDP port " + itoa(int(port))
	}
	for _, peer := range n.asked() {
		f := rules.dropped(packet{iif: n.underlay, src: peer.Address, dst: n.mesh.Self.Address, proto: proto, dport: port}, inputChain)
		if f.verdict != drops {
			continue
		}
		cmd := n.accept(f.chain, proto, port)
		if f.perhaps {
			return warn(n.Name(), cmd, "chain %s of table %s may drop %s from peer %s", f.chain.Name, f.chain.Table.Name, what, peer)
		}
		return fail(n.Name(), cmd, "chain %s of table %s drops %s from peer %s", f.chain.Name, f.chain.Table.Name, what, peer)
	}
	return ok(n.Name(), "%s from the peers is let in", what)
}

// accept is the command that lets the peers' tunnel packets in, first of all.
func (n *net) accept(ch *nftables.Chain, proto byte, port uint16) string {
	var addrs []string
	for _, peer := range n.asked() {
		addrs = append(addrs, peer.Address.String())
	}
	v6 := n.mesh.Self.Address.Is6()
	if ch.Table.Name == "filter" && ch.Table.Family != nftables.TableFamilyINet {
		cmd, match := "iptables", "-p gre"
		if v6 {
			cmd = "ip6tables"
		}
		if proto == protoUDP {
			match = "-p udp --dport " + itoa(int(port))
		}
		return fmt.Sprintf("%s -w -I INPUT %s -s %s -j ACCEPT", cmd, match, strings.Join(addrs, ","))
	}
	family, saddr, match := "inet", "ip saddr", "meta l4proto 47"
	if v6 {
		saddr = "ip6 saddr"
	}
	switch ch.Table.Family {
	case nftables.TableFamilyIPv4:
		family = "ip"
	case nftables.TableFamilyIPv6:
		family = "ip6"
	}
	if proto == protoUDP {
		match = "udp dport " + itoa(int(port))
	}
	return fmt.Sprintf("for a in %s; do nft insert rule %s %s %s %s $a %s accept; done", strings.Join(addrs, " "), family, quote(ch.Table.Name), quote(ch.Name), saddr, match)
}

// rawChain is where Docker 28 and later drop what comes for a container by
// another link than its bridge.
func rawChain(c *nftables.Chain) bool {
	return c.Type == nftables.ChainTypeFilter && *c.Hooknum == *nftables.ChainHookPrerouting && *c.Priority <= *nftables.ChainPriorityRaw && c.Table.Family != nftables.TableFamilyNetdev
}

// rawDrop looks whether a peer's packets to our containers' addresses are
// dropped before they are routed.
func rawDrop(_ context.Context, p *patient) []Finding {
	rules, err := readRuleset(rawChain)
	if err != nil {
		return []Finding{blind("", err)}
	}
	list := oldTables("raw", "PREROUTING")
	for _, n := range p.nets {
		if n.meshErr != nil || len(n.mesh.Peers) == 0 {
			continue
		}
		iif := n.arrival()
		f, dst := n.rawDropped(rules, iif)
		if f.verdict != drops {
			list = append(list, ok(n.Name(), "no raw rule drops what peers send to containers"))
			continue
		}
		list = append(list, fail(n.Name(), acceptRaw(f.chain, iif, n.mesh.Self.Subnets, dst), "chain %s of table %s drops what comes from %s for %s (Docker 28 and later do that to protect its containers)", f.chain.Name, f.chain.Table.Name, iif, dst))
	}
	return list
}

// arrival is the link by which peers' packets to containers come.
func (n *net) arrival() string {
	switch {
	case n.mode() == spec.ModeDirect || n.OVS == nil:
		return n.underlay
	case n.transit() != "":
		return n.transit()
	}
	return n.gateway
}

func (n *net) rawDropped(rules *ruleset, iif string) (fate, netip.Addr) {
	for _, dst := range n.named(rules) {
		peer := n.mesh.Peers[0].Subnets[0]
		for _, s := range n.mesh.Peers[0].Subnets {
			if s.Addr().Is6() == dst.Is6() {
				peer = s
			}
		}
		f := rules.dropped(packet{iif: iif, src: spec.Gateway(peer).Next(), dst: dst, proto: 6, dport: 80}, rawChain)
		if f.verdict == drops {
			return f, dst
		}
	}
	return fate{}, netip.Addr{}
}

// named are the addresses of this host's container subnets that rules name.
func (n *net) named(rules *ruleset) []netip.Addr {
	var list []netip.Addr
	for _, of := range rules.rules {
		for _, r := range of {
			for _, e := range r.Exprs {
				cmp, isCmp := e.(*expr.Cmp)
				if !isCmp {
					continue
				}
				a, ok := netip.AddrFromSlice(cmp.Data)
				for _, s := range n.mesh.Self.Subnets {
					if ok && s.Contains(a) {
						list = append(list, a)
					}
				}
			}
		}
	}
	return list
}

// acceptRaw is the command that lets the peers' packets by, before Docker's
// rules; Docker puts its own behind.
func acceptRaw(ch *nftables.Chain, iif string, subnets []netip.Prefix, dst netip.Addr) string {
	for _, s := range subnets {
		if !s.Contains(dst) {
			continue
		}
		cmd, family, daddr := "iptables", "ip", "ip daddr"
		if dst.Is6() {
			cmd, family, daddr = "ip6tables", "ip6", "ip6 daddr"
		}
		if ch.Table.Name == "raw" && ch.Table.Family != nftables.TableFamilyINet {
			return fmt.Sprintf("%s -w -t raw -I PREROUTING -i %s -d %s -j ACCEPT", cmd, iif, s)
		}
		if ch.Table.Family == nftables.TableFamilyINet {
			family = "inet"
		}
		return fmt.Sprintf("nft insert rule %s %s %s iifname %s %s %s accept", family, quote(ch.Table.Name), quote(ch.Name), iif, daddr, s)
	}
	return ""
}

// oldTables says that nobody has looked at a table of the old iptables, where
// the kernel has one.
func oldTables(table, chain string) []Finding {
	var list []Finding
	for file, cmd := range map[string]string{"ip_tables_names": "iptables-legacy", "ip6_tables_names": "ip6tables-legacy"} {
		names, err := os.ReadFile("/proc/self/net/" + file)
		if err == nil && slices.Contains(strings.Fields(string(names)), table) {
			list = append(list, warn("", cmd+" -t "+table+" -S "+chain, "the old iptables has a table %s here, which is not looked at", table))
		}
	}
	return list
}
