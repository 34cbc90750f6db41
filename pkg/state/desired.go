package state

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// Desired returns the host state that ovs-gre needs for a network: bridges, tunnels,
// gateway addresses, sysctls, masquerade, accepts. mtu is the result of MTU.
func Desired(c *config.Network, m nodes.Topology, mtu int) Set {
	s := Set{}
	s.Put(bridge(c, m, mtu))
	if c.LinuxBridge == "" && !c.AdoptBridge {
		// With a static entry, no container attracts the frames to the gateway
		// by sending from the gateway's MAC address. The MAC address of a Linux
		// bridge is not chosen here.
		s.Put(FDB{Network: c.Name, Bridge: c.Bridge, Port: c.Bridge, MAC: GatewayMAC(m.Self)})
	}
	s.Put(links(c, m, mtu)...)
	s.Put(ignoreRouters(c, m)...)
	switch {
	case Encrypted(c):
		s.Put(wireGuard(c, m, mtu)...)
	case c.Tunnel.Type != config.TunnelNone:
		if Guarded(c) {
			s.Put(guard(c, m))
		}
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
				// The bridge learns no MAC address from a peer that sends nothing,
				// not even ARP: its neighbour entry is permanent. Without a static
				// entry, the bridge would flood the frames to this peer to all.
				s.Put(FDB{Network: c.Name, Bridge: t.Bridge, Port: t.Name, MAC: config.MAC(p.Address)})
			}
		}
	}
	peers := mergedSubnets(m.Holders())
	if c.IPMasq {
		s.Put(masquerade(c, m, peers))
	}
	s.Put(forwards(c, m, peers)...)
	return s
}

// UsesTunnelBridge reports whether the tunnels are ports of a tunnel bridge. Packets
// get from the containers' bridge to the tunnel bridge by routing alone.
func UsesTunnelBridge(c *config.Network) bool {
	return c.Segment != config.SegmentMesh && c.Tunnel.Type != config.TunnelNone && !Encrypted(c)
}

// OneTunnel reports whether all peers share one tunnel port.
func OneTunnel(c *config.Network) bool {
	return c.Tunnel.Ports == config.PortsOne && UsesTunnelBridge(c)
}

// TunnelBridge returns the name of the OVS bridge that has the tunnels as ports.
func TunnelBridge(c *config.Network) string {
	if UsesTunnelBridge(c) {
		return config.TransitLink(c.Bridge)
	}
	return c.Bridge
}

// GatewayLink returns the name of the link that has the gateway addresses.
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
	hwaddr := GatewayMAC(m.Self)
	if c.LinuxBridge != "" {
		// The OVS bridge is a port of the Linux bridge with the gateway addresses;
		// the two need different MAC addresses.
		hwaddr = config.MAC(m.Self.Address)
	}
	return Bridge{Network: c.Name, Name: c.Bridge, DatapathType: c.DatapathType, FailMode: FailStandalone,
		HWAddr: hwaddr, MTU: mtu, MACTable: macTable(c, m)}
}

// macTable returns mac-table-size of the containers' bridge. A bridge with tunnels
// learns the containers of all hosts; room is made for 256 a host, by choice.
func macTable(c *config.Network, m nodes.Topology) int {
	if c.Segment != config.SegmentMesh {
		return 0
	}
	return tableFor(256 * (len(m.Peers) + 1))
}

// tableFor returns mac-table-size for a number of addresses: 0 where OVS's default of
// 8192 is enough, and at most a million, OVS's limit.
func tableFor(addresses int) int {
	if addresses <= 8192 {
		return 0
	}
	return min(addresses, 1_000_000)
}

// primary returns the gateway address from which the bridge's MAC address is derived:
// the first IPv4 one, else the first.
func primary(n config.Node) netip.Addr {
	gws := n.Gateways()
	if i := slices.IndexFunc(gws, netip.Addr.Is4); i >= 0 {
		return gws[i]
	}
	return gws[0]
}

// GatewayMAC returns the MAC address that a node's containers' bridge has, unless it is
// adopted or a Linux bridge holds the gateway addresses.
func GatewayMAC(n config.Node) string { return config.MAC(primary(n)) }

// links returns the gateway link and, with a Linux bridge, the OVS bridge's link, the
// gateway addresses, and the sysctls by which packets are forwarded.
func links(c *config.Network, m nodes.Topology, mtu int) []Object {
	gw := GatewayLink(c)
	var objs []Object
	if own := bridge(c, m, mtu); c.LinuxBridge != "" {
		// Packets of this host, and those that it forwards, must fit into the
		// tunnels. Docker sets its bridge's MTU when it starts.
		objs = append(objs, Link{Name: gw, Up: true, MaxMTU: mtu}, Link{Name: c.Bridge, Up: true, Master: gw, MTU: own.MTU, MAC: own.HWAddr})
	} else {
		objs = append(objs, Link{Name: gw, Up: true, MTU: own.MTU, MAC: own.HWAddr})
	}
	for i, s := range m.Self.Subnets {
		objs = append(objs, Addr{Dev: gw, Prefix: netip.PrefixFrom(m.Self.Gateways()[i], s.Bits())})
	}
	if has6(m.Self) && gw == c.Bridge && !c.AdoptBridge {
		// The kernel sends neighbour solicitations for containers from the
		// link-local address. It makes that address only when the link comes up,
		// so that a deleted one must be made here. A foreign link has its own.
		objs = append(objs, Addr{Dev: gw, Prefix: netip.PrefixFrom(config.LinkLocal(GatewayMAC(m.Self)), 64)})
	}
	objs = append(objs, forwarding(m, gw)...)
	if c.Segment != config.SegmentHost {
		// A packet from container to container enters and leaves by one link. The
		// kernel would send a redirect to a direct path, which does not exist. It
		// ORs net.ipv4.conf.all and the link's own value (inetdevice.h).
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

// tunnelBridge returns the tunnel bridge and its LOCAL port, the transit link.
//
// The transit link's MAC address is derived from the underlay address, so that peers
// need no ARP. Its reverse path filter is loose (the kernel uses the greater of all's
// and the link's own value), because a peer may answer through the tunnel a packet
// that it received directly. On a link without an IPv4 address a loose filter acts as a strict
// one (no_addr in fib_validate_source), so the link has the gateway's address.
func tunnelBridge(c *config.Network, m nodes.Topology, mtu int) []Object {
	dev, mac := config.TransitLink(c.Bridge), config.MAC(m.Self.Address)
	br := Bridge{Network: c.Name, Name: dev, DatapathType: c.DatapathType, FailMode: FailStandalone,
		HWAddr: mac, MTU: mtu, MACTable: tableFor(len(m.Peers) + 1)}
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
		// The kernel datapath accepts type gre with an IPv6 remote, but sends nothing.
		t.Type = "ip6gre"
	}
	if m.Local {
		// Peers accept packets only from the address that their nodes list has.
		t.Local = m.Self.Address
	}
	t.Options, t.Secrets = tunnelOptions(c)
	if c.Tunnel.Key != nil {
		t.Key = strconv.FormatUint(uint64(*c.Tunnel.Key), 10)
	}
	return t
}

func masquerade(c *config.Network, m nodes.Topology, peers [2][]netip.Prefix) Masquerade {
	// Multicast stays on its segment: RFC 5771, RFC 4291.
	excluded := []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8")}
	excluded = append(append(excluded, c.NoMasqueradeCIDRs...), m.Self.Subnets...)
	if OneTunnel(c) { // for as many peers as that is for, the filter has as few as the routes
		excluded = append(append(excluded, peers[0]...), peers[1]...)
		excluded = append(merge(ofFamily(excluded, false)), merge(ofFamily(excluded, true))...)
	} else {
		excluded = append(excluded, subnets(m.Peers)...)
	}
	return Masquerade{Network: c.Name, Sources: cidrList(m.Self.Subnets), Excluded: cidrList(excluded)}
}

// cidrList returns CIDRs sorted, without those inside others, joined by commas.
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
