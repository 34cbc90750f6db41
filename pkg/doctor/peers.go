package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ping"
	"ovs-gre-cni/pkg/state"
)

// maxProbed is how many peers of a network are asked; of more, the first.
const maxProbed = 500

func (n *networkInfo) probedPeers() []config.Node {
	return n.topology.Peers[:min(len(n.topology.Peers), maxProbed)]
}

// peers pings each peer's underlay address.
func peers(ctx context.Context, h *host) []Finding {
	var list []Finding
	for _, n := range h.nets {
		if len(n.topology.Peers) == 0 {
			continue
		}
		var probes []ping.Echo
		for _, peer := range n.probedPeers() {
			probes = append(probes, ping.Echo{To: peer.Address, From: n.source()})
		}
		err := ping.Ask(ctx, probes)
		var unrouted []netip.Addr
		if err == nil {
			unrouted, err = kernel.Unrouted(ctx, n.topology.Self.Address, addresses(n.topology.Peers))
		}
		if err != nil {
			list = append(list, unknown(n.Name(), err))
			continue
		}
		answers := 0
		for i, peer := range n.probedPeers() {
			switch {
			case probes[i].Answered:
				answers++
			case slices.Contains(unrouted, peer.Address):
			default:
				list = append(list, fail(n.Name(), n.routeCommand(peer.Address), "peer %s does not answer on the underlay", peer).
					each(peer.Name, n.silent(probes)))
			}
		}
		if len(unrouted) > 0 {
			list = append(list, fail(n.Name(), n.routeCommand(unrouted[0]),
				"%s: nothing gets to their containers by the tunnel", n.unrouted(unrouted)))
		}
		if answers == len(probes) {
			list = append(list, ok(n.Name(), "%d peers answer on the underlay", answers))
		}
	}
	return list
}

// silent is what is said of many peers that do not answer. Where none does, the
// cause is here, not there.
func (n *networkInfo) silent(probes []ping.Echo) string {
	if slices.ContainsFunc(probes, func(e ping.Echo) bool { return e.Answered }) {
		return "%s do not answer on the underlay"
	}
	return "none of the %s answers on the underlay: look at this host's own link first"
}

func addresses(nodes []config.Node) []netip.Addr {
	var list []netip.Addr
	for _, n := range nodes {
		list = append(list, n.Address)
	}
	return list
}

// unrouted names the peers with these addresses.
func (n *networkInfo) unrouted(addrs []netip.Addr) string {
	var of network.Network
	for _, p := range n.topology.Peers {
		if slices.Contains(addrs, p.Address) {
			of.Unreachable = append(of.Unreachable, p)
		}
	}
	return of.UnreachablePeers()
}

// source is the tunnels' source address, by which policy rules may choose the
// way; the zero Addr where this host has it not, as behind NAT.
func (n *networkInfo) source() netip.Addr {
	if n.underlay == "" {
		return netip.Addr{}
	}
	return n.topology.Self.Address
}

// routeCommand is the command that shows the way to a peer.
func (n *networkInfo) routeCommand(peer netip.Addr) string {
	if from := n.source(); from.IsValid() {
		return "ip route get " + peer.String() + " from " + from.String()
	}
	return "ip route get " + peer.String()
}

// tunnels pings each peer's gateway addresses from this host's, on the path of containers'
// packets. It reports no peer that does not answer on the underlay either: the check
// "peers" does.
func tunnels(ctx context.Context, h *host) []Finding {
	var list []Finding
	for _, n := range h.nets {
		if len(n.topology.Peers) == 0 {
			continue
		}
		if missing, err := n.MissingRoutes(ctx); err == nil && missing != "" {
			list = append(list, fail(n.Name(), n.editCommand(), "%s", missing))
			continue
		}
		if !n.up {
			list = append(list, warn(n.Name(), n.upCommand(), "no gateway address on this host: no peer can be asked"))
			continue
		}
		if changes, err := n.drift(ctx); err == nil && len(changes) > 0 {
			list = append(list, warn(n.Name(), n.upCommand(), "not asked: this host itself is not as it should be"))
			continue
		}
		list = append(list, n.askGateways(ctx)...)
	}
	return list
}

func (n *networkInfo) askGateways(ctx context.Context) []Finding {
	var probes []ping.Echo
	var of []config.Node
	for _, peer := range n.probedPeers() {
		probes, of = append(probes, ping.Echo{To: peer.Address, From: n.source()}), append(of, peer)
		for _, gw := range peer.Gateways() {
			if n.hasSubnet(gw.Is6()) {
				probes, of = append(probes, ping.Echo{To: gw, From: n.gatewayAddr(gw.Is6())}), append(of, peer)
			}
		}
	}
	if err := ping.Ask(ctx, probes); err != nil {
		return []Finding{unknown(n.Name(), err)}
	}
	reachable := map[string]bool{}
	answers := 0
	var list []Finding
	for i, e := range probes {
		switch peer := of[i]; {
		case e.To == peer.Address:
			reachable[peer.Name] = e.Answered
		case e.Answered:
			answers++
		case reachable[peer.Name]:
			f := fail(n.Name(), n.ctlCommand("up")+"  # on "+peer.Name, "%s of peer %s does not answer, although the peer does: %s",
				e.To, peer, n.reasons())
			list = append(list, f.each(peer.Name, "the gateways of %s do not answer, although the peers do: "+n.reasons()))
		}
	}
	if len(list) == 0 && answers > 0 {
		list = append(list, ok(n.Name(), "%d gateways of peers answer", answers))
	}
	return list
}

// reasons are what keeps a peer's gateway from answering.
func (n *networkInfo) reasons() string {
	if !n.tunnels() {
		return "it is not up there, or something on the way does not route its subnets"
	}
	what := "GRE (IP protocol 47)"
	if proto, port := n.protocol(); proto == protoUDP {
		what = "UDP port " + itoa(int(port))
	}
	return "the network is not up there, or something on the way drops " + what
}

func itoa(n int) string { return strconv.Itoa(n) }

// IP protocol numbers (IANA).
const (
	protoUDP = 17
	protoGRE = 47
)

// protocol is what the tunnels' packets are: a protocol of IP and a UDP port.
func (n *networkInfo) protocol() (proto byte, port uint16) {
	port = n.OVS.Tunnel.Port
	switch n.OVS.Tunnel.Type {
	case config.TunnelVXLAN:
		if port == 0 {
			port = 4789
		}
	case config.TunnelGeneve:
		if port == 0 {
			port = 6081
		}
	case config.TunnelWireGuard:
		if port == 0 {
			port = state.WireGuardPort
		}
	default:
		return protoGRE, 0
	}
	return protoUDP, port
}

// sizes are common path MTUs in bytes, which are tried where packets get lost.
var sizes = []int{8950, 8000, 1500, 1492, 1480, 1476, 1462, 1458, 1450, 1442, 1430, 1420, 1410, 1400, 1380, 1350, 1320, 1300, 1280}

// pathMTU pings each peer with packets as large as the tunnel packets of containers'
// largest ones. A link on the path may drop them silently.
func pathMTU(ctx context.Context, h *host) []Finding {
	var list []Finding
	for _, n := range h.nets {
		if n.OVS == nil || len(n.topology.Peers) == 0 {
			continue
		}
		open := network.Network{Config: n.OVS, Topology: n.topology}
		_, mtu, err := open.Want(ctx)
		if err != nil {
			list = append(list, fail(n.Name(), n.editCommand(), "%v", err))
			continue
		}
		list = append(list, n.probePath(ctx, mtu, mtu+state.Overhead(n.OVS.Tunnel, n.topology.Self.Address.Is6()))...)
	}
	return list
}

func (n *networkInfo) probePath(ctx context.Context, mtu, need int) []Finding {
	try := slices.DeleteFunc(slices.Clone(sizes), func(s int) bool { return s >= need })
	try = slices.Concat([]int{need}, try, []int{0})
	if len(n.probedPeers()) > 32 {
		try = []int{need, 0}
	}
	var probes []ping.Echo
	for _, peer := range n.probedPeers() {
		for _, s := range try {
			probes = append(probes, ping.Echo{To: peer.Address, From: n.source(), Size: s})
		}
	}
	if err := ping.Ask(ctx, probes); err != nil {
		return []Finding{unknown(n.Name(), err)}
	}
	var list []Finding
	for i, peer := range n.probedPeers() {
		of := probes[i*len(try) : (i+1)*len(try)]
		fits := slices.IndexFunc(of, func(e ping.Echo) bool { return e.Answered })
		if fits <= 0 {
			continue // the largest is answered, or none
		}
		seen := fmt.Sprintf("packets of %d bytes do not get to peer %s, which the MTU of %d inside containers makes", need, peer, mtu)
		if of[fits].Size > 0 {
			seen += fmt.Sprintf("; %d bytes do", of[fits].Size)
		}
		f := fail(n.Name(), n.shrinkCommand(peer.Address, of[fits].Size, mtu-need), "%s", seen)
		const many = "packets of %d bytes do not get to %%s, which the MTU of %d inside containers makes"
		list = append(list, f.each(peer.Name, fmt.Sprintf(many, need, mtu)))
	}
	if len(list) == 0 {
		list = append(list, ok(n.Name(), "packets of %d bytes, for an MTU of %d inside containers, are not too large for the way to the peers",
			need, mtu))
	}
	return list
}

// shrinkCommand is the command that makes a network's packets fit: with an MTU of its
// own the conflist must be changed, else the route to the peer says it.
func (n *networkInfo) shrinkCommand(peer netip.Addr, size, less int) string {
	if n.OVS.MTU != 0 || size == 0 {
		return fmt.Sprintf("${EDITOR:-vi} %s  # \"mtu\": %d", quote(n.Path), max(size+less, 1280))
	}
	ip := "ip"
	if peer.Is6() {
		ip = "ip -6"
	}
	return fmt.Sprintf("%[1]s route replace %[2]s/%[3]d $(ip -o %[7]s | grep -Eo '(via [^ ]+ )?dev [^ ]+') mtu %[4]d && %[5]s"+
		"  # for good: \"mtu\": %[6]d in the conflist",
		ip, peer, peer.BitLen(), size, n.upCommand(), size+less, strings.TrimPrefix(n.routeCommand(peer), "ip "))
}
