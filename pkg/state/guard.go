package state

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// Guarded reports whether the network's packets between hosts must be encrypted, by
// WireGuard or by IPsec around its tunnels. Such a network has a Guard.
func Guarded(c *config.Network) bool { return Encrypted(c) || c.Tunnel.IPsec() != "" }

// GuardForm returns the Guard of a Guarded network without Peers and Nodes. It decides
// which chains and rules the guard has.
func GuardForm(c *config.Network) Guard {
	g := Guard{Network: c.Name}
	switch {
	case Encrypted(c):
		g.Link = config.WireGuardName(c.Bridge)
		return g
	case UsesTunnelBridge(c):
		g.Link = TunnelBridge(c)
	default:
		g.Link = GatewayLink(c)
	}
	port := uint16(0)
	switch g.Tunnels = c.Tunnel.Type; g.Tunnels {
	case config.TunnelVXLAN:
		port = 4789
	case config.TunnelGeneve:
		port = 6081
	}
	if port != 0 { // config refuses any other with IPsec
		g.Tunnels = "udp " + strconv.Itoa(int(port))
	}
	return g
}

// guard returns the Guard of a Guarded network with this host's peers.
func guard(c *config.Network, m nodes.Topology) Guard {
	g := GuardForm(c)
	g.Peers = cidrList(subnets(m.Peers))
	if g.Tunnels != "" {
		var list []netip.Prefix
		for _, p := range m.Peers {
			list = append(list, netip.PrefixFrom(p.Address, p.Address.BitLen()))
		}
		g.Nodes = cidrList(list)
	}
	return g
}

// CheckIPsec returns an error if OVS's IPsec daemon cannot encrypt the tunnels between
// these nodes. A network without IPsec has none. The error wraps config.ErrInvalid.
func CheckIPsec(c *config.Network, m nodes.Topology) error {
	if c.Tunnel.IPsec() == "" || c.Tunnel.Type != config.TunnelGRE || m.Self.Address.Is4() {
		return nil
	}
	// is_tunneling_type_supported of ovs-monitor-ipsec has gre, and not ip6gre.
	return fmt.Errorf("%w: tunnel.options.%s: OVS's IPsec daemon does not know GRE over IPv6, as nodes have it: "+
		"want tunnel.type wireguard", config.ErrInvalid, c.Tunnel.IPsec())
}

func (g Guard) String() string {
	table := config.GuardName(g.Network)
	var b strings.Builder
	fmt.Fprintf(&b, "nft 'add table inet %[1]s; delete table inet %[1]s; add table inet %[1]s", table)
	sets := []struct{ name, list string }{{"peers", g.Peers}}
	if g.Tunnels != "" {
		sets = append(sets, struct{ name, list string }{"nodes", g.Nodes})
	}
	families := []struct{ family, kind, n string }{{"ip", "ipv4_addr", "4"}, {"ip6", "ipv6_addr", "6"}}
	for _, s := range sets {
		for _, f := range families {
			fmt.Fprintf(&b, "; add set inet %s %s%s { type %s; flags interval; ", table, s.name, f.n, f.kind)
			if elements := family(s.list, f.family); elements != "" {
				fmt.Fprintf(&b, "elements = { %s }; ", elements)
			}
			b.WriteString("}")
		}
	}
	rules := func(chain, priority, rule string) {
		fmt.Fprintf(&b, "; add chain inet %s %s { type filter hook %[2]s priority %s; }", table, chain, priority)
		for _, f := range families {
			fmt.Fprintf(&b, "; add rule inet %s %s %s drop", table, chain, strings.NewReplacer("FAMILY", f.family, "N", f.n).Replace(rule))
		}
	}
	rules("prerouting", "raw", fmt.Sprintf(`iifname != "%s" FAMILY saddr @peersN`, g.Link))
	rules("postrouting", "filter", fmt.Sprintf(`oifname != "%s" FAMILY daddr @peersN`, g.Link))
	if g.Tunnels != "" {
		outer := "meta l4proto gre"
		if port, udp := strings.CutPrefix(g.Tunnels, "udp "); udp {
			outer = "udp dport " + port
		}
		rules("input", "filter", "FAMILY saddr @nodesN "+outer+" meta secpath missing")
		rules("output", "filter", "FAMILY daddr @nodesN "+outer+" rt ipsec missing")
	}
	return b.String() + "'"
}
