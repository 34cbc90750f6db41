package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/state"
)

// outgoing are the steps of a packet that a container of this host sends.
func (s *tracer) outgoing() []func() error {
	var hop netip.Addr // the container's next hop
	return append([]func() error{
		s.source,
		func() (err error) { hop, err = s.ownRoute(); return err },
		func() error { return s.port(s.end) },
		func() error { return s.leave(hop) },
	}, s.throughHost()...)
}

// throughHost are the steps of outgoing from the gateway's link on.
func (s *tracer) throughHost() []func() error {
	var way kernel.Way // this host's route
	return []func() error{
		func() (err error) { way, err = s.hostRoute(s.gateway()); return err },
		func() error { return s.filters(s.gateway(), way) },
		func() error { return s.deliver(way) },
		func() error { return s.tunnel(way) },
		s.probe,
	}
}

// source checks the container's interface and address.
func (s *tracer) source() error {
	e := s.end
	s.tell("the container")
	family := "IPv4"
	if s.To.Is6() {
		family = "IPv6"
	}
	in := s.inNetns(e)
	switch {
	case !s.From.IsValid():
		return s.stop(StepContainer, "", "%s of container %s has no %s address", e.IfName, e.ContainerID, family)
	case e.netns != nil && !e.link.Up:
		return s.stop(StepContainer, in+"ip link set "+e.link.Name+" up", "%s of container %s is down", e.link.Name, e.ContainerID)
	case s.inside > 0 && e.mtu > s.inside:
		return s.stop(StepMTU, in+fmt.Sprintf("ip link set %s mtu %d", e.IfName, s.inside),
			"the MTU of %s is %d, and %d is all that fits into the tunnels: larger packets get lost", e.IfName, e.mtu, s.inside)
	}
	return s.pass(StepContainer, "%s of container %s has %s, %s, mtu %d", e.IfName, e.ContainerID, s.From, e.mac, e.mtu)
}

// inNetns is the beginning of a command that runs in a container's network namespace.
func (s *tracer) inNetns(e *end) string {
	if e.netns == nil {
		return ""
	}
	return "nsenter --net=" + e.netns.Path() + " "
}

// ownRoute looks up the container's route, and returns the next hop.
func (s *tracer) ownRoute() (netip.Addr, error) {
	e := s.end
	if e.netns == nil {
		return s.defaultHop(), s.pass(StepOwnRoute,
			"the container's network namespace is not to be found here: taken to send by its gateway")
	}
	way, err := inside(e, func() (kernel.Way, error) { return kernel.Route(s.ctx, kernel.Query{From: s.From, To: s.To}) })
	if errors.Is(err, kernel.ErrNoRoute) {
		return netip.Addr{}, s.stop(StepOwnRoute, s.inNetns(e)+"ip route add default via "+s.defaultHop().String(),
			"the container has no route to %s", s.To)
	}
	if err != nil {
		return netip.Addr{}, err
	}
	if way.Local {
		return netip.Addr{}, s.done(StepOwnRoute, "the container has that address itself")
	}
	if way.Dev != e.link.Name {
		return netip.Addr{}, s.stop(StepOwnRoute, "", "the container's route to %s leaves by %s, which is not in network %s: %s",
			s.To, way.Dev, s.Network, way.Text)
	}
	hop := way.Via
	if !hop.IsValid() {
		hop = s.To
	}
	n, err := inside(e, func() (kernel.Neighbour, error) { return kernel.NeighbourOf(s.ctx, way.Dev, hop) })
	if err != nil {
		return hop, err
	}
	if right := s.macOf(hop); n.MAC != "" && !n.Failed && right != "" && n.MAC != right {
		return hop, s.stop(StepNeighbour, s.inNetns(e)+fmt.Sprintf("ip neigh del %s dev %s", hop, way.Dev),
			"the container has %s as the MAC address of %s, which is %s", n.MAC, hop, right)
	}
	return hop, s.pass(StepOwnRoute, "%s", way.Text)
}

// defaultHop is the gateway of the destination's family.
func (s *tracer) defaultHop() netip.Addr {
	gws := s.mesh.Self.Gateways()
	if i := slices.IndexFunc(gws, func(a netip.Addr) bool { return a.Is6() == s.To.Is6() }); i >= 0 {
		return gws[i]
	}
	return netip.Addr{}
}

// macOf is the MAC address that belongs to a next hop of a container; "" is not
// known.
func (s *tracer) macOf(hop netip.Addr) string {
	if s.isGateway(hop) {
		if l, err := kernel.LinkByName(s.ctx, s.gateway()); err == nil {
			return l.MAC
		}
	}
	if e, err := s.endOf(hop); err == nil && e != nil {
		if e.netns != nil {
			e.netns.Close()
		}
		return e.mac
	}
	return ""
}

// isGateway reports whether an address is one of this host's gateways, or the
// link-local address of their link.
func (s *tracer) isGateway(a netip.Addr) bool {
	if slices.Contains(s.mesh.Self.Gateways(), a) {
		return true
	}
	addrs, _ := kernel.Addrs(s.ctx)
	return slices.ContainsFunc(addrs, func(k kernel.Addr) bool { return k.Prefix.Addr() == a && k.Link == s.gateway() })
}

// port checks the host's end of a container's veth pair, and its OVS port.
func (s *tracer) port(e *end) error {
	p, l := state.Port{Network: s.Network, Name: e.port}, state.Link{Name: e.port}
	if text := s.amiss(p, l); text != "" {
		return s.stop(StepPort, s.up(), "%s", text)
	}
	if s.net == nil {
		return nil
	}
	return s.pass(StepPort, "%s is up, and a port of OVS bridge %s", e.port, s.file.OVS.Bridge)
}

// leave asks Open vSwitch what the containers' bridge does with the frame.
func (s *tracer) leave(hop netip.Addr) error {
	mac := s.macOf(hop)
	if s.net == nil || mac == "" {
		return nil // another plugin's bridge, or the next hop's MAC address is not known
	}
	to, target := s.gateway(), s.gateway()
	if s.file.OVS.LinuxBridge != "" {
		to = s.file.OVS.Bridge
	}
	local, err := s.endOf(hop)
	if err != nil {
		return err
	}
	if local != nil {
		if local.netns != nil {
			defer local.netns.Close()
		}
		to, target = local.port, "container "+local.ContainerID
	}
	if err := s.bridge(s.file.OVS.Bridge, s.end.port, s.end.mac, mac, to, target); err != nil {
		return err
	}
	if local != nil && hop == s.To {
		return s.arrive(local)
	}
	return nil
}

// hostRoute looks up this host's route of the packet, which comes by the link in.
func (s *tracer) hostRoute(in string) (kernel.Way, error) {
	s.tell("this host's routes")
	if err := s.forwards(in); err != nil {
		return kernel.Way{}, err
	}
	way, err := kernel.Route(s.ctx, kernel.Query{From: s.From, To: s.To, In: in})
	ours := s.route(s.To)
	switch {
	case errors.Is(err, kernel.ErrReversePath):
		return way, s.reverse(in)
	case ours != nil && s.amiss(*ours) != "":
		text := s.amiss(*ours)
		if err == nil && !way.Ours {
			text += ": the packet goes by " + way.Text
		}
		return way, s.stop(StepRoute, s.mend(), "%s", text)
	case errors.Is(err, kernel.ErrNoRoute):
		return way, s.stop(StepRoute, s.mend(), "%v", err)
	case err != nil:
		return way, err
	case ours != nil && way.Table != ours.Table:
		rule := "ip rule add to "
		if s.To.Is6() {
			rule = "ip -6 rule add to "
		}
		return way, s.stop(StepRoute, fmt.Sprintf("%s%s lookup %d", rule, ours.Dst, ours.Table),
			"%s is in table %d, and the packet goes by table %d: %s", ours.Noun(), ours.Table, way.Table, way.Text)
	case ours != nil && (way.Dst != ours.Dst || !way.Ours):
		return way, s.stop(StepRoute, lookUp(s.To, s.From, in)+"  # another's: whoever made it has to change it",
			"route %s is not ours, and goes before %s", way.Text, ours.Noun())
	}
	return way, s.pass(StepRoute, "%s", way.Text)
}

// lookUp is the command that shows the route of a packet.
func lookUp(to, from netip.Addr, in string) string {
	s := fmt.Sprintf("ip route get %s from %s", to, from)
	if in != "" {
		s += " iif " + in
	}
	return s
}

// route is our wanted route to an address; nil is none.
func (s *tracer) route(to netip.Addr) *state.Route {
	list := wanted(s, func(r state.Route) bool { return r.Dst.Contains(to) })
	if len(list) == 0 || s.own(to) { // which the gateway address leads to
		return nil
	}
	slices.SortFunc(list, func(a, b state.Route) int { return b.Dst.Bits() - a.Dst.Bits() })
	return &list[0]
}

// forwards checks whether the kernel forwards packets that come by the link in.
func (s *tracer) forwards(in string) error {
	keys := []string{"net/ipv4/ip_forward", "net/ipv4/conf/" + in + "/forwarding"}
	if s.To.Is6() {
		keys = []string{"net/ipv6/conf/all/forwarding"}
	}
	var objects []state.Object
	for _, key := range keys {
		objects = append(objects, state.Sysctl{Key: key})
	}
	objects = append(objects, wantedObjects(s, func(l state.Link) bool { return l.Name == in })...)
	objects = append(objects, wantedObjects(s, func(a state.Addr) bool { return a.Dev == in })...)
	if text := s.amiss(objects...); text != "" {
		return s.stop(StepForward, s.mend(), "%s", text)
	}
	return nil
}

// wantedObjects is wanted as a list of objects.
func wantedObjects[T state.Object](s *tracer, pick func(T) bool) (list []state.Object) {
	for _, o := range wanted(s, pick) {
		list = append(list, o)
	}
	return list
}

// reverse stops a packet that the reverse path filter drops: the route to its source is not
// by the link in.
func (s *tracer) reverse(in string) error {
	cmd := "sysctl -w net/ipv4/conf/" + in + "/rp_filter=2"
	back := "nothing"
	if way, err := kernel.Route(s.ctx, kernel.Query{To: s.From}); err == nil {
		back = way.Text
	}
	if text := s.amiss(state.Sysctl{Key: "net/ipv4/conf/" + in + "/rp_filter"}); text != "" {
		return s.stop(StepReverse, s.up(), "%s: what comes from %s by %s is dropped, for %s leads back", text, s.From, in, back)
	}
	return s.stop(StepReverse, cmd, "what comes from %s by %s is dropped, for %s leads back", s.From, in, back)
}

// deliver follows the packet to its next hop on a link of this host.
func (s *tracer) deliver(way kernel.Way) error {
	if way.Local {
		return errDone
	}
	hop := way.Via
	if !hop.IsValid() {
		hop = s.To
	}
	if way.Dev == s.gateway() && s.peer == nil {
		e, err := s.endOf(s.To)
		if err != nil {
			return err
		}
		return s.toContainer(e)
	}
	entries := wantedObjects(s, func(n state.Neigh) bool { return n.Dev == way.Dev && n.IP == hop && n.MAC != "" })
	if text := s.amiss(entries...); text != "" {
		return s.stop(StepNeighbour, s.mend(), "%s", text)
	}
	n, err := kernel.NeighbourOf(s.ctx, way.Dev, hop)
	if err != nil {
		return err
	}
	if n.Failed {
		return s.stop(StepNeighbour, "ip neigh show "+hop.String(), "nobody on %s answers for %s", way.Dev, hop)
	}
	if s.peer == nil {
		_ = s.pass(StepRoute, "it leaves this host by %s%s", way.Dev, s.masqueraded(way.Dev))
		return s.outside()
	}
	if n.MAC != "" {
		return s.pass(StepNeighbour, "%s on %s is %s", hop, way.Dev, n.MAC)
	}
	return nil
}

// masqueraded is a text about the address with which the packet leaves the network; "" is
// its own.
func (s *tracer) masqueraded(dev string) string {
	if s.file.OVS == nil || !s.file.OVS.IPMasq {
		return ""
	}
	return ", masqueraded with an address of " + dev
}

// tunnel checks the tunnel to the peer, and what Open vSwitch does with the frame.
func (s *tracer) tunnel(way kernel.Way) error {
	if s.net == nil || s.peer == nil || s.file.OVS.Tunnel.Type == config.TunnelNone {
		return nil
	}
	bridge := state.TunnelBridge(s.file.OVS)
	if way.Dev != bridge || bridge == s.file.OVS.Bridge {
		return nil // not by a tunnel, or by tunnels on the containers' bridge
	}
	if err := s.tunnelObjects(); err != nil {
		return err
	}
	mac := config.MAC(s.peer.Address)
	if state.OneTunnel(s.file.OVS) {
		mac = config.AnyPeerMAC
	}
	l, err := kernel.LinkByName(s.ctx, bridge)
	if err != nil {
		return err
	}
	fate, err := s.ask(bridge, bridge, l.MAC, mac)
	if err != nil {
		return s.stop(StepTunnel, s.mend(), "%v", err)
	}
	if !slices.Contains(fate.Remotes, s.peer.Address) {
		// The table is as it should be: up would change nothing.
		return s.stop(StepTunnel, "", "OVS bridge %s does not send it to %s: %s", bridge, s.peer.Address, fate.Why)
	}
	return s.pass(StepTunnel, "OVS bridge %s sends it by %s to %s", bridge, s.file.OVS.Tunnel.Type, s.peer)
}

// tunnelObjects compares the tunnel, its bridge and its FDB entry with the wanted ones.
func (s *tracer) tunnelObjects() error {
	bridge := state.TunnelBridge(s.file.OVS)
	var objects []state.Object
	objects = append(objects, wantedObjects(s, func(b state.Bridge) bool { return b.Name == bridge })...)
	objects = append(objects, wantedObjects(s, func(t state.Tunnel) bool { return t.Peer == s.peer.Name || t.OFPort != 0 })...)
	objects = append(objects, wantedObjects(s, func(f state.Flows) bool { return f.Bridge == bridge })...)
	mac := config.MAC(s.peer.Address)
	objects = append(objects, wantedObjects(s, func(f state.FDB) bool { return f.Bridge == bridge && f.MAC == mac })...)
	if text := s.amiss(objects...); text != "" {
		return s.stop(StepTunnel, s.mend(), "%s", text)
	}
	return nil
}
