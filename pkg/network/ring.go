package network

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/state"
)

// CheckNoLoop looks whether a mesh would be a ring: where its bridge is joined to the
// peers' hosts by something else than its tunnels, a broadcast goes round by
// both for ever. The error wraps fault.ErrForeign and names what joins them: a
// link by which a peer is reached, or another tunnel to it. What it cannot see
// is a way that no route takes, such as a second LAN that all hosts are on.
func (n *Network) CheckNoLoop(ctx context.Context) error {
	if n.Config.Segment != config.SegmentMesh || len(n.Topology.Peers) == 0 {
		return nil
	}
	ports, err := n.OVS.SegmentPorts(ctx)
	if err != nil {
		return err
	}
	wires, err := kernel.Wires(ctx)
	if err != nil {
		return err
	}
	g := newSegments(wires, ports)
	bridge := state.GatewayLink(n.Config)
	for _, p := range n.Topology.Peers {
		links, err := kernel.Egress(ctx, n.Topology.Self.Address, p.Address)
		if err != nil {
			return err
		}
		for _, l := range links {
			if way := g.way(l, bridge, true); way != nil {
				return n.findLoop(bridge, fmt.Sprintf("%s, by which %s is reached (%s)", l, p, strings.Join(way, ", ")))
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
		return n.findLoop(bridge, fmt.Sprintf("a tunnel %s %s to %s on OVS bridge %s", p.Name, owner, n.Topology.Peers[i], p.Bridge))
	}
	return nil
}

func (n *Network) findLoop(bridge, have string) error {
	return fmt.Errorf("bridge %s: %w: want it in segment mesh, joined to the other hosts by this network's tunnels alone; it has %s: "+
		"frames would go round by both (segment host has no such ring)", bridge, fault.ErrForeign, have)
}

// segments are the links of a host and what joins them.
type segments map[string][]kernel.Wire

func newSegments(wires []kernel.Wire, ports []ovs.SegmentPort) segments {
	g := segments{}
	join := func(a, b string) {
		g[a], g[b] = append(g[a], kernel.Wire{From: a, To: b}), append(g[b], kernel.Wire{From: b, To: a})
	}
	for _, w := range wires {
		g[w.From] = append(g[w.From], w)
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

// way is the shortest way for frames from one link to another, both included;
// nil is none. With lower it may begin by going down, to the links that carry
// the frames of the first.
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
			next := place{w.To, at.down}
			if _, seen := before[next]; !seen && (!w.Lower || at.down) {
				before[next] = at
				queue = append(queue, next)
			}
		}
	}
	return nil
}
