package doctor

import (
	"context"
	"errors"
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

// peers tells which peers' underlay addresses answer.
func peers(ctx context.Context, h *host) []Finding {
	var list []Finding
	for _, n := range h.nets {
		if len(n.topology.Peers) == 0 {
			continue
		}
		unrouted, err := kernel.Unrouted(ctx, n.topology.Self.Address, addresses(n.topology.Peers))
		asked, asking := n.answers()
		if err = errors.Join(asking, err); err != nil {
			list = append(list, unknown(n.Name(), err))
			continue
		}
		answers := 0
		for i, peer := range n.probedPeers() {
			switch {
			case asked.underlay[i].Answered:
				answers++
			case slices.Contains(unrouted, peer.Address):
			default:
				list = append(list, fail(n.Name(), n.routeCommand(peer.Address), "peer %s does not answer on the underlay", peer).
					each(peer.Name, n.silent(asked.underlay)))
			}
		}
		if len(unrouted) > 0 {
			list = append(list, fail(n.Name(), n.routeCommand(unrouted[0]),
				"%s: nothing gets to their containers by the tunnel", n.unrouted(unrouted)))
		}
		if answers == len(asked.underlay) {
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

// tunnels tells which peers' gateway addresses answer. It reports no peer that does not answer on the underlay either: the check
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
		list = append(list, n.judgeGateways()...)
	}
	return list
}

func (n *networkInfo) judgeGateways() []Finding {
	asked, err := n.answers()
	if err != nil {
		return []Finding{unknown(n.Name(), err)}
	}
	answers := 0
	var list []Finding
	for i, e := range asked.gateways {
		switch peer := n.topology.Peers[asked.of[i]]; {
		case e.Answered:
			answers++
		case asked.underlay[asked.of[i]].Answered:
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

// pathMTU tells whether packets as large as the tunnel packets of containers'
// largest ones get to the peers. A link on the path may drop them silently.
func pathMTU(_ context.Context, h *host) []Finding {
	var list []Finding
	for _, n := range h.nets {
		if n.OVS != nil && len(n.topology.Peers) > 0 {
			list = append(list, n.judgePath()...)
		}
	}
	return list
}

func (n *networkInfo) judgePath() []Finding {
	asked, err := n.answers()
	switch {
	case err != nil:
		return []Finding{unknown(n.Name(), err)}
	case asked.mtuErr != nil:
		return []Finding{fail(n.Name(), n.editCommand(), "%v", asked.mtuErr)}
	}
	mtu, need := asked.mtu, asked.try[0]
	var list []Finding
	for i, peer := range n.probedPeers() {
		of := append(asked.sized[i*len(asked.try):][:len(asked.try):len(asked.try)], asked.underlay[i])
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
