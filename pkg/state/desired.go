package state

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// Desired returns the host state that ovs-gre wants: bridges, tunnels, gateway
// addresses, sysctls, masquerade. mtu is what MTU returned.
func Desired(c *config.Network, m nodes.Topology, mtu int) Set {
	s := Set{}
	s.Put(bridge(c, m, mtu))
	if c.LinuxBridge == "" && !c.AdoptBridge {
		// No container can draw the others' frames by sending with the
		// gateway's address. A Linux bridge's address is not ours to know.
		s.Put(FDB{Network: c.Name, Bridge: c.Bridge, Port: c.Bridge, MAC: config.MAC(primary(m.Self))})
	}
	s.Put(links(c, m, mtu)...)
	s.Put(ignoreRouters(c, m)...)
	switch {
	case Encrypted(c):
		s.Put(wireGuard(c, m, mtu)...)
	case c.Tunnel.Type != config.TunnelNone:
		if UsesTunnelBridge(c) {
			s.Put(tunnelBridge(c, m, mtu)...)
		}
		if OneTunnel(c) {
			s.Put(oneTunnel(c, m)...)
		}
		for _, p := range m.Peers {
			if OneTunnel(c) {
				break
			}
			t := TunnelTo(c, m, p)
			s.Put(t)
			if UsesTunnelBridge(c) {
				// Neighbours are permanent, so nobody asks, and from a peer that
				// never sends anything the bridge learns nothing: it would copy
				// to all peers what is for that one.
				s.Put(FDB{Network: c.Name, Bridge: t.Bridge, Port: t.Name, MAC: config.MAC(p.Address)})
			}
		}
	}
	if c.IPMasq {
		s.Put(masquerade(c, m))
	}
	s.Put(Forwards(c, m)...)
	return s
}

// UsesTunnelBridge reports whether the tunnels are on a bridge of their own,
// which meets the containers' bridge by routing alone.
func UsesTunnelBridge(c *config.Network) bool {
	return c.Segment != config.SegmentMesh && c.Tunnel.Type != config.TunnelNone && !Encrypted(c)
}

// OneTunnel reports whether all peers share one tunnel port.
func OneTunnel(c *config.Network) bool {
	return c.Tunnel.Ports == config.PortsOne && UsesTunnelBridge(c)
}

// TunnelBridge is the OVS bridge that has the tunnels as its ports.
func TunnelBridge(c *config.Network) string {
	if UsesTunnelBridge(c) {
		return config.TransitLink(c.Bridge)
	}
	return c.Bridge
}

// GatewayLink is the link that carries the gateway addresses.
func GatewayLink(c *config.Network) string {
	if c.LinuxBridge != "" {
		return c.LinuxBridge
	}
	return c.Bridge
}

func bridge(c *config.Network, m nodes.Topology, mtu int) Bridge {
	if c.AdoptBridge {
		return Bridge{Network: c.Name, Name: c.Bridge, Adopted: true}
	}
	hwaddr := config.MAC(primary(m.Self))
	if c.LinuxBridge != "" {
		// The bridge is a port of the Linux bridge that holds the gateway
		// address; the two must not be taken for one another.
		hwaddr = config.MAC(m.Self.Address)
	}
	return Bridge{Network: c.Name, Name: c.Bridge, DatapathType: c.DatapathType, FailMode: FailStandalone, HWAddr: hwaddr, MTU: mtu, MACTable: macTable(c, m)}
}

// macTable is the size of the table of the containers' bridge: with tunnels on
// it, it knows the containers of all hosts, of which 256 each are foreseen.
func macTable(c *config.Network, m nodes.Topology) int {
	if c.Segment != config.SegmentMesh {
		return 0
	}
	return tableFor(256 * (len(m.Peers) + 1))
}

// tableFor is the size of a table for so many addresses: 0 where OVS's default
// of 8192 does, and at most the million that OVS takes.
func tableFor(addresses int) int {
	if addresses <= 8192 {
		return 0
	}
	return min(addresses, 1_000_000)
}

// primary is the gateway address that names the bridge's MAC: the first of
// IPv4, else the first.
func primary(n config.Node) netip.Addr {
	gws := n.Gateways()
	if i := slices.IndexFunc(gws, netip.Addr.Is4); i >= 0 {
		return gws[i]
	}
	return gws[0]
}

// links are the gateway's links, their addresses and what the way of a packet
// needs of the kernel.
func links(c *config.Network, m nodes.Topology, mtu int) []Object {
	gw := GatewayLink(c)
	var objs []Object
	if own := bridge(c, m, mtu); c.LinuxBridge != "" {
		// What this host sends to peers' containers, and what it sends on to its
		// own, must fit the tunnels. Docker sets its bridge's MTU when it starts.
		objs = append(objs, Link{Name: gw, Up: true, MaxMTU: mtu}, Link{Name: c.Bridge, Up: true, Master: gw, MTU: own.MTU, MAC: own.HWAddr})
	} else {
		objs = append(objs, Link{Name: gw, Up: true, MTU: own.MTU, MAC: own.HWAddr})
	}
	for i, s := range m.Self.Subnets {
		objs = append(objs, Addr{Dev: gw, Prefix: netip.PrefixFrom(m.Self.Gateways()[i], s.Bits())})
	}
	if has6(m.Self) && gw == c.Bridge && !c.AdoptBridge {
		// The kernel asks by it for the MAC address of a container that a
		// forwarded packet is for. It made it when the link came up, and does
		// not do so again; a link that is not ours has its own.
		objs = append(objs, Addr{Dev: gw, Prefix: netip.PrefixFrom(config.LinkLocal(config.MAC(primary(m.Self))), 64)})
	}
	objs = append(objs, forwarding(m, gw)...)
	if c.Segment != config.SegmentHost {
		// What a container sends by the gateway leaves by the link it came
		// from. The kernel then tells it of a shorter way, which there is not;
		// net.ipv4.conf.all and the link's own are ORed (inetdevice.h).
		objs = append(objs, Sysctl{"net/ipv4/conf/all/send_redirects", "0"})
	}
	return objs
}

func forwarding(m nodes.Topology, dev string) []Object {
	objs := []Object{
		Sysctl{"net/ipv4/ip_forward", "1"},
		Sysctl{"net/ipv4/conf/" + dev + "/forwarding", "1"},
		Sysctl{"net/ipv4/conf/" + dev + "/send_redirects", "0"},
	}
	if has6(m.Self) {
		objs = append(objs, Sysctl{"net/ipv6/conf/all/forwarding", "1"})
	}
	return objs
}

func has6(n config.Node) bool {
	return slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Addr().Is6() })
}

// tunnelBridge is the bridge of the tunnels, and its internal port, the transit
// link, by which this host reaches its peers' hosts. Its MAC address follows
// from the underlay address, so that peers need not ask; its reverse path
// filter is loose (the kernel takes the greater of all and the link's own),
// because a peer host may answer by the tunnel what it was sent by another
// way. On a link without an IPv4 address even a loose filter is strict (no_addr
// in fib_validate_source), so it has the gateway's.
func tunnelBridge(c *config.Network, m nodes.Topology, mtu int) []Object {
	dev, mac := config.TransitLink(c.Bridge), config.MAC(m.Self.Address)
	br := Bridge{Network: c.Name, Name: dev, DatapathType: c.DatapathType, FailMode: FailStandalone, HWAddr: mac, MTU: mtu, MACTable: tableFor(len(m.Peers) + 1)}
	if OneTunnel(c) {
		br.FailMode, br.MACTable = FailSecure, 0 // it learns nothing
	}
	objs := append(forwarding(m, dev), br,
		Link{Name: dev, Up: true, MTU: mtu, MAC: mac},
		Sysctl{"net/ipv4/conf/" + dev + "/rp_filter", "2"},
	)
	if gw := primary(m.Self); gw.Is4() {
		objs = append(objs, Addr{Dev: dev, Prefix: netip.PrefixFrom(gw, 32)})
	}
	if has6(m.Self) || m.Self.Address.Is6() {
		objs = append(objs,
			Sysctl{"net/ipv6/conf/" + dev + "/addr_gen_mode", "1"},
			Addr{Dev: dev, Prefix: netip.PrefixFrom(config.LinkLocal(mac), 64)},
		)
	}
	return objs
}

// TunnelTo is the tunnel port to one peer.
func TunnelTo(c *config.Network, m nodes.Topology, p config.Node) Tunnel {
	t := Tunnel{
		Network: c.Name, Name: config.TunnelName(c.Name, p.Address), Bridge: TunnelBridge(c),
		Type: c.Tunnel.Type, Remote: p.Address, Csum: c.Tunnel.Csum, DstPort: c.Tunnel.Port, BFD: c.Tunnel.BFD, Peer: p.Name,
	}
	if p.Address.Is6() && t.Type == config.TunnelGRE {
		// The kernel datapath takes gre with an IPv6 remote and sends nothing.
		t.Type = "ip6gre"
	}
	if m.Local {
		// Peers take packets only from the address they know.
		t.Local = m.Self.Address
	}
	if c.Tunnel.Key != nil {
		t.Key = strconv.FormatUint(uint64(*c.Tunnel.Key), 10)
	}
	return t
}

func masquerade(c *config.Network, m nodes.Topology) Masquerade {
	// Multicast is for this segment: RFC 5771, RFC 4291.
	excluded := []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8")}
	excluded = append(excluded, c.NoMasqueradeCIDRs...)
	for _, n := range m.All() {
		excluded = append(excluded, n.Subnets...)
	}
	if OneTunnel(c) { // for as many peers as that is for, the filter has as few as the routes
		excluded = append(merge(ofFamily(excluded, false)), merge(ofFamily(excluded, true))...)
	}
	return Masquerade{Network: c.Name, Sources: cidrList(m.Self.Subnets), Excluded: cidrList(excluded)}
}

// cidrList sorts CIDRs, drops those inside others and joins them by commas.
func cidrList(list []netip.Prefix) string {
	list = slices.SortedFunc(slices.Values(list), netip.Prefix.Compare)
	var b strings.Builder
	var last netip.Prefix
	for _, p := range list {
		if last.IsValid() && last.Contains(p.Addr()) && last.Bits() <= p.Bits() {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(p.String())
		last = p
	}
	return b.String()
}
