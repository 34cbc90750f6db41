package trace

import (
	"errors"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/ping"
	"ovs-gre-cni/pkg/state"
)

// incoming are the steps of a packet that a peer sends.
func (s *tracer) incoming() []func() error {
	in := s.arrival()
	var way kernel.Way
	return []func() error{
		func() error { return s.arrives(in) },
		func() (err error) { way, err = s.hostRoute(in); return err },
		func() error { return s.filters(in, way) },
		func() error {
			if way.Local {
				return errDone
			}
			e, err := s.endOf(s.To)
			if err != nil {
				return err
			}
			return s.toContainer(e)
		},
	}
}

// arrival is the link by which the peer's packets come: the one by which the wanted route
// to the peer leads, whatever the kernel's route is.
func (s *tracer) arrival() string {
	if r := s.route(s.From); r != nil && r.Dev != "" {
		return r.Dev
	}
	if s.net != nil && state.UsesTunnelBridge(s.file.OVS) && s.From != s.peer.Address {
		return config.TransitLink(s.file.OVS.Bridge)
	}
	if links, err := kernel.Egress(s.ctx, s.mesh.Self.Address, s.peer.Address); err == nil && len(links) > 0 {
		return links[0]
	}
	return s.gateway()
}

// arrives checks the tunnel that the packet comes by.
func (s *tracer) arrives(in string) error {
	if s.net == nil || in != config.TransitLink(s.file.OVS.Bridge) || !state.UsesTunnelBridge(s.file.OVS) {
		return s.pass(StepUnderlay, "it comes from %s by %s, without a tunnel", s.peer, in)
	}
	if err := s.tunnelObjects(); err != nil {
		return err
	}
	if err := s.tunnelInput(); err != nil {
		return err
	}
	l, err := kernel.LinkByName(s.ctx, in)
	if err != nil {
		return err
	}
	port := config.TunnelName(s.Network, s.peer.Address)
	if state.OneTunnel(s.file.OVS) {
		port = config.OneTunnelName(s.Network)
	}
	if err := s.bridge(in, port, config.MAC(s.peer.Address), l.MAC, in, in); err != nil {
		return err
	}
	return s.pass(StepTunnel, "it comes from %s by %s", s.peer, s.file.OVS.Tunnel.Type)
}

// toContainer follows the packet to a container of this host; nil is no container with the
// address.
func (s *tracer) toContainer(e *end) error {
	s.tell("the destination")
	switch {
	case e != nil:
	case !s.own(s.To):
		return s.stop(StepTarget, "", "%s is no address of this host's subnets", s.To)
	case s.shared():
		return s.toOther()
	default:
		return s.stop(StepTarget, "ovs-grectl status -v "+quote(s.file.Path),
			"no container here has %s: it is gone, or has another address", s.To)
	}
	if e.netns != nil {
		defer e.netns.Close()
	}
	if err := s.port(e); err != nil {
		return err
	}
	gw := s.gateway()
	n, err := kernel.NeighbourOf(s.ctx, gw, s.To)
	if err != nil {
		return err
	}
	if n.MAC != "" && !n.Failed && n.MAC != e.mac {
		return s.stop(StepNeighbour, (state.Neigh{Dev: gw, IP: s.To, MAC: e.mac}).String(),
			"neighbour %s on %s has %s, and the container has %s", s.To, gw, n.MAC, e.mac)
	}
	if s.net != nil && s.file.OVS.LinuxBridge == "" {
		l, err := kernel.LinkByName(s.ctx, gw)
		if err != nil {
			return err
		}
		if err := s.bridge(s.file.OVS.Bridge, s.file.OVS.Bridge, l.MAC, e.mac, e.port, "container "+e.ContainerID); err != nil {
			return err
		}
	}
	return s.arrive(e)
}

// toOther follows the packet to a container of another plugin, which is known only by its
// answers.
func (s *tracer) toOther() error {
	gw := s.gateway()
	echo := []ping.Echo{{To: s.To, From: s.ownGateway(s.To.Is6())}}
	if err := ping.Ask(s.ctx, echo); err != nil {
		return err
	}
	n, err := kernel.NeighbourOf(s.ctx, gw, s.To)
	switch {
	case err != nil:
		return err
	case echo[0].Answered:
		return s.done(StepTarget, "%s on %s answers ping from this host", s.To, gw)
	case n.MAC == "" || n.Failed:
		return s.stop(StepTarget, "ip neigh show "+s.To.String(), "nobody on %s answers for %s: it is gone, or has another address", gw, s.To)
	}
	return s.done(StepTarget, "%s on %s is %s; it does not answer ping from this host, so it may filter what comes", s.To, gw, n.MAC)
}

// arrive checks the container that the packet is for: its interface, its route back, and
// whether it answers.
func (s *tracer) arrive(e *end) error {
	if e.netns == nil {
		return s.done(StepTarget, "container %s has %s", e.ContainerID, s.To)
	}
	switch {
	case !e.link.Up:
		return s.stop(StepTarget, s.inNetns(e)+"ip link set "+e.link.Name+" up", "%s of container %s is down", e.link.Name, e.ContainerID)
	case !slices.ContainsFunc(e.link.Addrs, func(p netip.Prefix) bool { return p.Addr() == s.To }):
		return s.stop(StepTarget, "", "%s of container %s no longer has %s", e.link.Name, e.ContainerID, s.To)
	}
	_, err := inside(e, func() (kernel.Way, error) { return kernel.Route(s.ctx, kernel.Query{From: s.To, To: s.From}) })
	if errors.Is(err, kernel.ErrNoRoute) {
		return s.stop(StepTarget, s.inNetns(e)+"ip route add default via "+s.defaultHop().String(),
			"container %s has no route back to %s: it gets the packet and cannot answer", e.ContainerID, s.From)
	}
	echo := []ping.Echo{{To: s.To, From: s.ownGateway(s.To.Is6())}}
	if err := ping.Ask(s.ctx, echo); err != nil {
		return err
	}
	if !echo[0].Answered {
		return s.done(StepTarget, "container %s has %s; it does not answer ping from this host, so it may filter what comes",
			e.ContainerID, s.To)
	}
	return s.done(StepTarget, "container %s has %s, and answers ping from this host", e.ContainerID, s.To)
}

// done adds the last step.
func (s *tracer) done(name, format string, args ...any) error {
	_ = s.pass(name, format, args...)
	return errDone
}
