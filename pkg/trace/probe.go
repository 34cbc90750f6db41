package trace

import (
	"context"
	"fmt"
	"net/netip"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/ping"
	"ovs-gre-cni/pkg/state"
)

// answers tell which echo requests were answered.
type answers struct {
	underlay, underlayLarge, gateway, gatewayLarge, target, targetLarge bool
	// size is the largest packet that the container sends, outer its size on the
	// underlay, in bytes.
	size, outer int
	// asked: the container's namespace was found, and target was sent a request there.
	asked bool
}

// probe sends echo requests to the peer, its gateway, and the destination, by the way that
// the packet takes. They are sent at once, so that those without an answer cost their time
// once.
func (s *tracer) probe() error {
	if s.peer == nil {
		return nil
	}
	s.tell("whether " + s.peer.Name + " answers")
	a, err := s.listen()
	if err != nil {
		return err
	}
	s.Peer = s.peer.Name
	there := s.next() + "  # on " + s.peer.Name
	gw := s.peerGateway()
	switch {
	case !a.target && !a.gateway && !a.underlay:
		return s.stop(StepUnderlay, lookUp(s.peer.Address, s.mesh.Self.Address, ""),
			"peer %s does not answer on the underlay", s.peer)
	case !a.target && !a.gateway && gw.IsValid():
		s.Next = s.next()
		return s.stop(StepPeer, there, "peer %s answers on the underlay, and %s does not through the tunnel: "+
			"the network is not up there, its tunnel differs, or something between drops %s", s.peer, gw, s.outer())
	case !a.underlayLarge && !a.gatewayLarge && !a.targetLarge && a.size > 0:
		return s.stop(StepMTU, s.shrink(a),
			"packets of %d bytes do not get to peer %s, which the container's MTU of %d makes; smaller ones do", a.outer, s.peer, a.size)
	case a.asked && !a.target:
		s.Next = s.next()
		return s.stop(StepTarget, there, "%s does not answer, although the network is up on %s", s.To, s.peer)
	}
	_ = s.pass(StepPeer, "peer %s answers on the underlay, and through the tunnel", s.peer)
	switch {
	case a.target && s.Protocol == "icmp":
		return s.done(StepTarget, "%s answers", s.To)
	case a.target && s.q.Proto == protoTCP && s.q.Port != 0:
		return s.connect(there)
	}
	if s.Next = s.next(); a.target {
		return s.done(StepTarget, "%s answers ping", s.To)
	}
	return errDone
}

// connect opens the TCP connection: a destination that answers ping may drop others.
func (s *tracer) connect(there string) error {
	var answered, refused bool
	err := s.end.netns.Do(func() (err error) {
		answered, refused, err = ping.Connect(s.ctx, s.From, s.To, s.q.Port)
		return err
	})
	switch {
	case err != nil:
		return err
	case refused:
		return s.done(StepTarget, "%s answers, and refuses TCP port %d: the packet arrives, and nobody listens", s.To, s.q.Port)
	case answered:
		return s.done(StepTarget, "%s takes connections to TCP port %d", s.To, s.q.Port)
	}
	s.Next = s.next()
	return s.stop(StepTarget, there, "%s answers ping, and says nothing on TCP port %d: go on there", s.To, s.q.Port)
}

// outer is the type of the tunnel's packets, for messages.
func (s *tracer) outer() string {
	if s.file.OVS == nil {
		return "it"
	}
	return s.file.OVS.Tunnel.Type
}

// peerGateway is the peer's gateway of the destination's family; the zero Addr is none, or
// that this host has no gateway of the family to send from.
func (s *tracer) peerGateway() netip.Addr {
	if own := s.ownGateway(s.To.Is6()); own.IsValid() {
		for _, gw := range s.peer.Gateways() {
			if gw.Is6() == s.To.Is6() {
				return gw
			}
		}
	}
	return netip.Addr{}
}

func (s *tracer) listen() (a answers, err error) {
	source := netip.Addr{}
	if s.mesh.Local {
		source = s.mesh.Self.Address
	}
	a.size = s.inside
	if s.end != nil && s.end.mtu > 0 {
		a.size = s.end.mtu
	}
	if a.outer = a.size; s.file.OVS != nil && s.file.OVS.Tunnel.Type != "" {
		a.outer += state.Overhead(s.file.OVS.Tunnel, s.mesh.Self.Address.Is6())
	}
	here := []ping.Echo{{To: s.peer.Address, From: source}, {To: s.peer.Address, From: source, Size: a.outer}}
	if gw := s.peerGateway(); gw.IsValid() {
		own := s.ownGateway(gw.Is6())
		here = append(here, ping.Echo{To: gw, From: own}, ping.Echo{To: gw, From: own, Size: a.size})
	}
	inside := []ping.Echo{{To: s.To, From: s.From}, {To: s.To, From: s.From, Size: a.size}}
	done := make(chan error, 1)
	go func() { done <- s.fromContainer(s.ctx, inside) }()
	err = ping.Ask(s.ctx, here)
	failed := <-done
	if err != nil {
		return a, err
	}
	a.underlay, a.underlayLarge = here[0].Answered, here[1].Answered
	if len(here) > 2 {
		a.gateway, a.gatewayLarge = here[2].Answered, here[3].Answered
	}
	a.asked = failed == nil && s.end != nil && s.end.netns != nil
	a.target, a.targetLarge = inside[0].Answered, inside[1].Answered
	return a, nil
}

// fromContainer sends echo requests from the container's own namespace.
func (s *tracer) fromContainer(ctx context.Context, list []ping.Echo) error {
	if s.end == nil || s.end.netns == nil {
		return nil
	}
	return s.end.netns.Do(func() error { return ping.Ask(ctx, list) })
}

// outside sends an echo request to a destination outside of the network.
func (s *tracer) outside() error {
	list := []ping.Echo{{To: s.To, From: s.From}}
	if s.end == nil || s.end.netns == nil || s.fromContainer(s.ctx, list) != nil {
		return errDone
	}
	if !list[0].Answered {
		return s.done(StepTarget, "%s does not answer ping: what becomes of the packet behind this host cannot be seen here", s.To)
	}
	return s.done(StepTarget, "%s answers", s.To)
}

// shrink is the command that makes the packets fit: an MTU of the route to the peer, or,
// where the route or the configuration has one, the key mtu of the conflist.
func (s *tracer) shrink(a answers) string {
	h := ping.Host{Mesh: nodes.Topology{Self: s.mesh.Self, Peers: []config.Node{*s.peer}}, Underlay: a.outer, Inside: a.size}
	if s.mesh.Local {
		h.Source = s.mesh.Self.Address
	}
	row, err := ping.Row(s.ctx, h, nil)
	if err != nil || row[0].Underlay.MTU == 0 {
		return s.edit()
	}
	fits := row[0].Underlay.MTU
	inside := fits - (a.outer - a.size)
	way, err := kernel.Route(s.ctx, kernel.Query{From: h.Source, To: s.peer.Address})
	if err != nil || way.MTU != 0 || s.file.OVS == nil || s.file.OVS.MTU != 0 {
		return fmt.Sprintf("%s  # \"mtu\": %d", s.edit(), inside)
	}
	via := ""
	if way.Via.IsValid() {
		via = "via " + way.Via.String() + " "
	}
	return fmt.Sprintf("ip route replace %s/%d %sdev %s mtu %d && %s  # for good: \"mtu\": %d in the conflist, and new containers",
		s.peer.Address, s.peer.Address.BitLen(), via, way.Dev, fits, s.up(), inside)
}
