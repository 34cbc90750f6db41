package network

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/state"
)

// CheckNoLoop returns an error if the bridge of a network in segment mesh is joined to a
// peer's host by more than its own tunnels: broadcasts would loop for ever. The error
// wraps fault.ErrForeign and names the link by which the peer is reached, or the other
// tunnel to it. A connection that no route uses, such as a second LAN with all hosts, is
// not found.
func (n *Network) CheckNoLoop(ctx context.Context) error {
	if n.Config.Segment != config.SegmentMesh || len(n.Topology.Peers) == 0 {
		return nil
	}
	ports, err := n.OVS.SegmentPorts(ctx)
	if err != nil {
		return err
	}
	links, err := kernel.Links(ctx)
	if err != nil {
		return err
	}
	g := newSegments(links, ports)
	bridge := state.GatewayLink(n.Config)
	for _, p := range n.Topology.Peers {
		ways, err := kernel.Egress(ctx, n.Topology.Self.Address, p.Address)
		if err != nil {
			return err
		}
		for _, l := range ways {
			if way := g.way(l, bridge, true); way != nil {
				return n.loopError(bridge, fmt.Sprintf("%s, by which %s is reached (%s)", l, p, strings.Join(way, ", ")))
			}
		}
	}
	for _, p := range ports {
		i := slices.IndexFunc(n.Topology.Peers, func(peer config.Node) bool { return peer.Address == p.Remote })
		if i < 0 || p.Network == n.Config.Name || g.way(bridge, p.Bridge, false) == nil {
			continue
		}
		owner := "that is not ours"
		if p.Network != "" {
			owner = "of network " + p.Network
		}
		return n.loopError(bridge, fmt.Sprintf("a tunnel %s %s to %s on OVS bridge %s", p.Name, owner, n.Topology.Peers[i], p.Bridge))
	}
	return nil
}

func (n *Network) loopError(bridge, have string) error {
	return fmt.Errorf("bridge %s: %w: want it in segment mesh, joined to the other hosts by this network's tunnels alone; it has %s: "+
		"frames would loop (segment host has no such loop)", bridge, fault.ErrForeign, have)
}

// checkTunnelConflict returns an error if OVS would deliver packets of this network's peers
// to another network's tunnel, or the reverse. OVS reports no error if one network has a
// port for each peer and the other one port for all, with the same type and key. The error
// wraps fault.ErrForeign.
func (n *Network) checkTunnelConflict(ctx context.Context) error {
	if !state.UsesTunnelBridge(n.Config) {
		return nil // CheckNoLoop finds such tunnels
	}
	ports, err := n.OVS.SegmentPorts(ctx)
	if err != nil {
		return err
	}
	mine := state.TunnelTo(n.Config, n.Topology, n.Topology.Self)
	one := state.OneTunnel(n.Config)
	for _, p := range ports {
		if p.Network == n.Config.Name || p.Type != mine.Type || !same(p.Key, mine.Key, "0") ||
			!same(p.DstPort, strconv.Itoa(int(mine.DstPort)), "0", defaultPorts[mine.Type]) {
			continue
		}
		_, toPeer := n.Topology.Fan.Node(p.Remote)
		toPeer = toPeer || slices.ContainsFunc(n.Topology.Peers, func(peer config.Node) bool { return peer.Address == p.Remote })
		if one && toPeer || !one && p.AnyRemote && len(n.Topology.Peers) > 0 {
			return fmt.Errorf("tunnel.ports %s: %w: OVS bridge %s has the tunnel port %s of the same type (%s) and key (%q), "+
				"and OVS gives it what is for the other: give this network a tunnel.key of its own",
				n.Config.Tunnel.Ports, fault.ErrForeign, p.Bridge, p.Name, p.Type, p.Key)
		}
	}
	return nil
}

// defaultPorts are the UDP ports of tunnel types (RFC 7348, RFC 8926).
var defaultPorts = map[string]string{config.TunnelVXLAN: "4789", config.TunnelGeneve: "6081"}

// same reports whether two options of tunnels mean the same; "" and the values of defaults
// are equal.
func same(a, b string, defaults ...string) bool {
	isDefault := func(s string) bool { return s == "" || slices.Contains(defaults, s) }
	return a == b || isDefault(a) && isDefault(b)
}

// segments are the links that hand Ethernet frames on to another one, by their names.
type segments map[string][]wire

// A wire leads to another link. lower: that is the lower link, such as the one under a
// VLAN, and carries frames of others, too.
type wire struct {
	to    string
	lower bool
}

// newSegments joins ports with their bridge or bond in both directions, the two ends of
// veth pairs, VLAN, macvlan and similar links with their lower links, and ports of OVS as
// OVSDB has them.
func newSegments(links []kernel.Link, ports []ovs.SegmentPort) segments {
	g := segments{}
	add := func(from string, w wire) { g[from] = append(g[from], w) }
	join := func(a, b string) {
		add(a, wire{to: b})
		add(b, wire{to: a})
	}
	kinds := map[string]string{}
	for _, l := range links {
		kinds[l.Name] = l.Kind
	}
	for _, l := range links {
		// The ports of a VRF are no segment, it routes between them; which ports OVS joins
		// is in OVSDB.
		if master := kinds[l.Master]; l.Master != "" && master != "vrf" && master != "openvswitch" {
			join(l.Name, l.Master)
		}
		switch {
		case l.Lower == "":
		case l.Kind == "veth":
			add(l.Name, wire{to: l.Lower})
		case l.Kind == "macvlan", l.Kind == "macvtap":
			join(l.Name, l.Lower)
		case l.Kind == "vlan", l.Kind == "ipvlan", l.Kind == "macsec":
			add(l.Name, wire{to: l.Lower, lower: true})
		}
	}
	bridgeOf := map[string]string{}
	for _, p := range ports {
		bridgeOf[p.Name] = p.Bridge
	}
	for _, p := range ports {
		switch far, ok := bridgeOf[p.Peer]; {
		case p.Remote.IsValid():
		case p.Peer != "" && ok:
			join(p.Bridge, far)
		case p.Peer == "" && p.Name != p.Bridge:
			join(p.Name, p.Bridge)
		}
	}
	return g
}

// way is the shortest path of frames from one link to another, both included; nil is none.
// With lower it may begin with lower links, such as the one under a VLAN.
func (g segments) way(from, to string, lower bool) []string {
	type place struct { // down: it may still go down
		link string
		down bool
	}
	before := map[place]place{}
	start := place{from, lower}
	before[start] = start
	for queue := []place{start}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at.link == to {
			way := []string{at.link}
			for at != start {
				at = before[at]
				way = append(way, at.link)
			}
			slices.Reverse(way)
			return way
		}
		for _, w := range g[at.link] {
			next := place{w.to, at.down}
			if _, seen := before[next]; !seen && (!w.lower || at.down) {
				before[next] = at
				queue = append(queue, next)
			}
		}
	}
	return nil
}
