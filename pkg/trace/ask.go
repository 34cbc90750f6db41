package trace

import (
	"errors"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/state"
)

// ask asks Open vSwitch what it does with the packet in a frame from the MAC address from
// to the MAC address to.
func (s *tracer) ask(bridge, port, from, to string) (ovs.Fate, error) {
	s.tell("Open vSwitch")
	f := ovs.Frame{Bridge: bridge, Port: port, SrcMAC: from, DstMAC: to, From: s.From, To: s.To, Proto: s.q.Proto, DstPort: s.q.Port}
	if port == config.OneTunnelName(s.Network) {
		f.TunSrc, f.TunDst = s.peer.Address, s.mesh.Self.Address
	}
	return s.control.Trace(s.ctx, f)
}

// bridge asks whether a bridge passes the frame on to the port want, which the messages
// call target.
func (s *tracer) bridge(bridge, port, from, to, want, target string) error {
	b := wantedObjects(s, func(b state.Bridge) bool { return b.Name == bridge })
	fate, err := s.ask(bridge, port, from, to)
	text := s.amiss(b...)
	switch {
	case errors.Is(err, ovs.ErrRefused) && text != "":
		return s.stop(StepOVS, s.mend(), "%s", text)
	case errors.Is(err, ovs.ErrRefused):
		return s.stop(StepOVS, s.mend(), "%v", err)
	case err != nil:
		return err
	case fate.Reaches(want):
		return s.pass(StepOVS, "OVS bridge %s passes it from %s to %s", bridge, port, target)
	case text != "":
		return s.stop(StepOVS, s.mend(), "%s: it does not pass the packet to %s", text, target)
	}
	return s.stop(StepOVS, s.mend(), "OVS bridge %s does not pass it to %s: %s", bridge, target, fate.Why)
}

// filters asks the packet filter about the packet, which comes by the link in.
func (s *tracer) filters(in string, way kernel.Way) error {
	s.tell("the packet filter")
	p := firewall.Packet{In: in, IPv6: s.To.Is6(), From: single(s.From), To: single(s.To), Proto: s.q.Proto, Port: s.q.Port}
	if err := s.filter(StepRaw, firewall.Prerouting, p); err != nil {
		return err
	}
	if way.Local {
		if err := s.filter(StepInput, firewall.Input, p); err != nil {
			return err
		}
		return s.done(StepTarget, "%s is this host's own address", s.To)
	}
	p.Out = way.Dev
	return s.filter(StepFilter, firewall.Forward, p)
}

func (s *tracer) filter(step string, hook firewall.Hook, p firewall.Packet) error {
	found, err := firewall.FindDrops(s.ctx, hook, p)
	if errors.Is(err, firewall.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	switch d := found[0]; {
	case d == nil:
		return s.pass(step, "nothing drops it")
	case !d.Sure || d.Doubt:
		return s.pass(step, "%s may drop it", d.By)
	default:
		return s.stop(step, s.acceptCommand(step, d, p), "%s drops it", d.By)
	}
}

// acceptCommand is the command for a packet that d drops: ovs-grectl up where an accept of
// ours is missing, in raw one that adds an accept in front of the drop, else one that lists
// the rules, which an administrator has made.
func (s *tracer) acceptCommand(step string, d *firewall.Drop, p firewall.Packet) string {
	switch {
	case step == StepRaw && !d.Docker():
		return d.AcceptCommand(p.In, s.subnet(p.To[0].Addr()))
	case step == StepFilter && slices.ContainsFunc(wantedObjects(s, func(state.Forward) bool { return true }), s.differs):
		return s.up()
	}
	return d.ListCommand()
}

func (s *tracer) differs(o state.Object) bool { return s.amiss(o) != "" }

// subnet is the container subnet, of this host or a peer, that contains an address; the
// address alone if there is none.
func (s *tracer) subnet(a netip.Addr) netip.Prefix {
	for _, n := range s.mesh.All() {
		for _, sub := range n.Subnets {
			if sub.Contains(a) {
				return sub
			}
		}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

func single(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())} }

// tunnelInput asks the packet filter about the tunnel's outer packets. Those of the
// userspace datapath do not pass it.
func (s *tracer) tunnelInput() error {
	typ, _, err := s.net.OVS.DatapathType(s.ctx, s.file.OVS.Bridge)
	if err != nil || typ == "netdev" {
		return err
	}
	links, err := kernel.Egress(s.ctx, s.mesh.Self.Address, s.peer.Address)
	if err != nil || len(links) == 0 {
		return err
	}
	p := firewall.Packet{In: links[0], IPv6: s.peer.Address.Is6(), Proto: protoGRE}
	p.From, p.To = single(s.peer.Address), single(s.mesh.Self.Address)
	if port := map[string]uint16{config.TunnelVXLAN: 4789, config.TunnelGeneve: 6081}[s.file.OVS.Tunnel.Type]; port != 0 {
		if p.Proto, p.Port = protoUDP, port; s.file.OVS.Tunnel.Port != 0 {
			p.Port = s.file.OVS.Tunnel.Port
		}
	}
	found, err := firewall.FindDrops(s.ctx, firewall.Input, p)
	if err != nil || found[0] == nil || !found[0].Sure || found[0].Doubt {
		return err
	}
	return s.stop(StepTunnel, "ovs-grectl doctor "+quote(s.file.Path), "%s drops the tunnel's packets from %s", found[0].By, s.peer)
}

// ownGateway is this host's gateway address of a family; the zero Addr is none.
func (s *tracer) ownGateway(v6 bool) netip.Addr {
	addrs, _ := kernel.Addrs(s.ctx)
	for _, gw := range s.mesh.Self.Gateways() {
		if gw.Is6() == v6 && slices.ContainsFunc(addrs, func(a kernel.Addr) bool { return a.Prefix.Addr() == gw }) {
			return gw
		}
	}
	return netip.Addr{}
}
