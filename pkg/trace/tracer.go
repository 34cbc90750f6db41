package trace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/state"
)

// A tracer has the state that the steps of one packet use.
type tracer struct {
	Trace
	ctx  context.Context
	file conflist.File
	q    Question
	tell func(string)
	mesh nodes.Topology
	// net is nil where the conflist has no ovs-gre; control is nil where ovs-vswitchd
	// does not answer.
	net     *network.Network
	control *ovs.Control
	// end is the container that sends the packet; nil where a peer sends it, or, if
	// others is set, a container of another plugin, which is followed from the host on.
	end    *end
	others bool
	// ends are all containers of the network on this host, by port.
	ends map[string]config.Attachment
	// peer is the node of the other end; nil is none.
	peer *config.Node
	// want is the wanted state of the host, drift the changes that it needs.
	want  state.Set
	drift map[state.ID]state.Change
	// inside is the MTU of a new container in bytes; 0 is not known.
	inside int
}

// An end is a container of this host.
type end struct {
	config.Attachment
	port  string
	netns *kernel.Netns // nil: it was not found
	link  kernel.ContainerLink
	mac   string
	mtu   int
	addrs []netip.Addr
}

func (s *tracer) close() {
	if s.end != nil && s.end.netns != nil {
		s.end.netns.Close()
	}
	s.control.Close()
	if s.net != nil {
		s.net.OVS.Close()
	}
}

// open finds the packet's ends in a network. The error wraps ErrUnknown where its source is
// not in the network. Where it wraps fault.ErrUnavailable, a tracer with the ends is
// returned, too.
func open(ctx context.Context, f conflist.File, q Question, tell func(string)) (*tracer, error) {
	if tell == nil {
		tell = func(string) {}
	}
	s := &tracer{ctx: ctx, file: f, q: q, tell: tell, want: state.Set{}, drift: map[state.ID]state.Change{}}
	s.Trace = Trace{Network: f.Name(), To: q.To, Protocol: q.protocol(), Port: q.Port, Steps: []Step{}}
	var err error
	if s.mesh, err = network.Resolve(ctx, f.Base()); err != nil {
		return nil, err
	}
	if f.OVS != nil {
		if s.ends, err = network.LiveAttachments(ctx, f.Name()); err != nil {
			return nil, err
		}
	}
	if err := s.find(); err != nil {
		return nil, err
	}
	if err := s.expect(); err != nil {
		s.close()
		return s, err
	}
	return s, nil
}

// find finds the container or the peer that sends the packet.
func (s *tracer) find() error {
	addr, err := netip.ParseAddr(s.q.Container)
	if err == nil {
		return s.findAddr(addr.Unmap())
	}
	var ports []string
	ids := map[string]bool{}
	for port, a := range s.ends {
		if port == s.q.Container || strings.HasPrefix(a.ContainerID, s.q.Container) {
			ports, ids[a.ContainerID] = append(ports, port), true
		}
	}
	switch {
	case len(ids) == 0:
		return ErrUnknown
	case len(ids) > 1:
		return fmt.Errorf("container %q: %d containers begin so: %s", s.q.Container, len(ids), strings.Join(slices.Sorted(maps.Keys(ids)), ", "))
	}
	slices.Sort(ports)
	e, err := s.look(ports[0])
	if err != nil {
		return err
	}
	s.start(e, e.addr(s.q.To.Is6()))
	return nil
}

func (s *tracer) findAddr(a netip.Addr) error {
	if a.Is6() != s.q.To.Is6() {
		return fmt.Errorf("container %s, destination %s: want addresses of one family", a, s.q.To)
	}
	if e, err := s.endOf(a); err != nil || e != nil {
		s.start(e, a)
		return err
	}
	s.From = a
	if s.shared() && s.own(a) {
		s.others, s.peer = true, s.node(s.To)
		return nil
	}
	if s.peer = s.node(a); s.peer == nil {
		return ErrUnknown
	}
	return nil
}

// shared reports whether containers of other plugins may have addresses of the network: the
// conflist has no ovs-gre, or ovs-gre uses a Linux bridge.
func (s *tracer) shared() bool { return s.file.OVS == nil || s.file.OVS.LinuxBridge != "" }

// own reports whether an address is in this host's subnets.
func (s *tracer) own(a netip.Addr) bool {
	return slices.ContainsFunc(s.mesh.Self.Subnets, func(n netip.Prefix) bool { return n.Contains(a) })
}

func (s *tracer) start(e *end, from netip.Addr) {
	if e != nil {
		s.end, s.ContainerID, s.IfName, s.From = e, e.ContainerID, e.IfName, from
		s.peer = s.node(s.To)
	}
}

// node is the peer with an address, as its own or in its subnets; nil is none.
func (s *tracer) node(a netip.Addr) *config.Node {
	if p, ok := s.mesh.PeerOf(a); ok {
		return &p
	}
	return nil
}

// endOf is the container of this host with an address; nil is none.
func (s *tracer) endOf(a netip.Addr) (*end, error) {
	for _, port := range slices.Sorted(maps.Keys(s.ends)) {
		far, err := kernel.VethPeerOf(s.ctx, port)
		if err == nil && slices.Contains(far.Addrs, a) {
			return s.look(port)
		}
	}
	return nil, nil
}

// look reads a container by its port.
func (s *tracer) look(port string) (*end, error) {
	e := &end{Attachment: s.ends[port], port: port}
	far, err := kernel.VethPeerOf(s.ctx, port)
	if err == nil {
		e.mac, e.mtu, e.addrs = far.MAC, far.MTU, far.Addrs
	}
	var ifName string
	e.netns, ifName, err = kernel.NetnsOf(s.ctx, port)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	e.link, err = e.netns.Inspect(s.ctx, ifName)
	return e, err
}

// inside calls f in the container's network namespace, which must be known.
func inside[T any](e *end, f func() (T, error)) (answer T, err error) {
	err = e.netns.Do(func() error {
		answer, err = f()
		return err
	})
	return answer, err
}

// addr is the container's address of a family; the zero Addr is none.
func (e *end) addr(v6 bool) netip.Addr {
	if i := slices.IndexFunc(e.addrs, func(a netip.Addr) bool { return a.Is6() == v6 }); i >= 0 {
		return e.addrs[i]
	}
	return netip.Addr{}
}

// expect sets want and drift.
func (s *tracer) expect() error {
	s.tell("what this host should have")
	if s.file.OVS != nil {
		n, err := network.Open(s.ctx, s.file.OVS)
		if err != nil {
			return err
		}
		s.net = n
		if err := ovs.VswitchdServes(s.ctx, s.file.OVS.OVSDB); err != nil {
			return err
		}
		if s.control, err = ovs.DialControl(s.ctx, s.file.OVS.OVSDB); err != nil {
			return err
		}
		want, inside, err := n.Want(s.ctx)
		if err != nil {
			return err
		}
		s.inside = inside
		if err := s.compare(want, n.Backends()); err != nil {
			return err
		}
		changes, err := attach.DriftedPorts(s.ctx, n)
		if err != nil {
			return err
		}
		s.note(changes)
	}
	if s.file.Routes == nil {
		return nil
	}
	r, err := routes.Open(s.ctx, s.file.Routes, s.file.Bridge())
	if err != nil {
		return err
	}
	want, err := r.Want()
	if err != nil && !errors.Is(err, state.ErrUnreachable) {
		return err
	}
	return s.compare(want, r.Backends())
}

func (s *tracer) compare(want state.Set, backends []state.Backend) error {
	changes, err := state.Check(s.ctx, want, backends...)
	s.note(changes)
	s.want.Put(want.Sorted()...)
	return err
}

func (s *tracer) note(changes []state.Change) {
	for _, c := range changes {
		if c.New != nil {
			s.drift[c.New.ID()] = c
		}
	}
}

// amiss is the difference of the first object that is not as wanted; "" is none.
func (s *tracer) amiss(objects ...state.Object) string {
	for _, o := range objects {
		if c, differs := s.drift[o.ID()]; differs {
			return c.Drift()
		}
	}
	return ""
}

// wanted are the wanted objects for which pick returns true.
func wanted[T state.Object](s *tracer, pick func(T) bool) (list []T) {
	for _, o := range s.want.Sorted() {
		if t, ok := o.(T); ok && pick(t) {
			list = append(list, t)
		}
	}
	return list
}

// up is the command that makes the wanted state.
func (s *tracer) up() string { return "ovs-grectl up " + quote(s.file.Path) }

// edit is the command that edits the conflist.
func (s *tracer) edit() string { return "${EDITOR:-vi} " + quote(s.file.Path) }

// mend is up, or edit where a foreign object is in the way of a wanted one, so that up would
// fail.
func (s *tracer) mend() string {
	for _, c := range s.drift {
		if _, foreign := c.Old.(state.Foreign); foreign {
			return s.edit()
		}
	}
	return s.up()
}

// quote quotes a path for a shell, if necessary.
func quote(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._/:+", r)
	}) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// next is the command that follows the packet on the peer.
func (s *tracer) next() string {
	cmd := fmt.Sprintf("ovs-grectl trace %s %s", s.From, s.To)
	if s.Protocol != "icmp" {
		cmd += " " + s.Protocol
	}
	if s.Port != 0 {
		cmd += fmt.Sprintf(" %d", s.Port)
	}
	return cmd
}

// gateway is the link with the gateway addresses; "" is none.
func (s *tracer) gateway() string {
	if s.file.OVS != nil {
		return state.GatewayLink(s.file.OVS)
	}
	addrs, _ := kernel.Addrs(s.ctx)
	for _, a := range addrs {
		if slices.Contains(s.mesh.Self.Gateways(), a.Prefix.Addr()) {
			return a.Link
		}
	}
	return ""
}
