package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"time"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// A report is the status of a network.
type report struct {
	Network    string             `json:"network"`
	File       string             `json:"file"`
	Node       string             `json:"node"`
	Address    string             `json:"address"`
	Peers      int                `json:"peers"`
	Underlay   string             `json:"underlay,omitempty"` // holds the peers, where no list has them
	Segment    string             `json:"segment,omitempty"`
	Persistent bool               `json:"persistent"`
	Bridge     *link              `json:"bridge,omitempty"`
	Transit    *link              `json:"transit,omitempty"` // or the WireGuard link
	Tunnels    []ovs.TunnelStatus `json:"tunnels"`
	WireGuard  []wireGuardPeer    `json:"wireguard,omitempty"`
	Routes     []route            `json:"routes"`
	Containers []container        `json:"containers"`
	// Notes are about differences that are no problem.
	Notes []string `json:"notes,omitempty"`
	// Drift has all differences from the wanted state.
	Drift []string `json:"drift"`
	// ByHand has for each of Drift a command that removes the difference; "" is none.
	ByHand []string `json:"byHand"`
	// Errors are about checks that failed.
	Errors []string `json:"errors,omitempty"`
	// unable: there is such an error.
	unable bool
	// unmade: the network was not made in this boot, neither by a container nor by up.
	unmade bool
	// foreign: something that is not ours is in the way.
	foreign bool
	// summary is Drift in few sentences, with the index of the first of each.
	summary []summary
}

// A summary is a sentence about one or more of a report's Drift; first is the index of the
// first one.
type summary struct {
	text  string
	first int
	// unmade: the difference is gone once the network is made.
	unmade bool
}

// A link is the internal port of a bridge, or the WireGuard link.
type link struct {
	Name string `json:"name"`
	// State is up, down or missing.
	State    string `json:"state"`
	MAC      string `json:"mac,omitempty"`
	MTU      int    `json:"mtu,omitempty"`
	Datapath string `json:"datapath,omitempty"`
}

// A route is a wanted route.
type route struct {
	Destination string `json:"destination"`
	Command     string `json:"command"`
	// State is ok, missing or wrong.
	State string `json:"state"`
}

// statusTimeout bounds the checks of one network.
const statusTimeout = 15 * time.Second

// status prints the state of the networks, and the differences from the wanted one.
func status(ctx context.Context, c *call) int {
	files, code := c.networks()
	reports := []report{}
	for _, f := range files {
		c.progress.begin("looking at network " + f.Name())
		r := inspect(ctx, f)
		reports = append(reports, r)
		code = max(code, r.code())
	}
	c.progress.end()
	if c.json {
		return max(code, c.print(reports))
	}
	if len(reports) == 0 {
		return max(code, exitUnable)
	}
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(c.out)
		}
		r.text(c, c.out)
	}
	return code
}

func (r report) code() int {
	switch {
	case r.unable:
		return exitUnable
	case len(r.Drift)+len(r.Errors) > 0:
		return exitDrift
	}
	return exitFine
}

// fail adds an error to the report. Errors about a difference from the configuration are
// drift; others are about a check that failed.
func (r *report) fail(err error) {
	var drift state.Drift
	switch {
	case err == nil:
	case errors.As(err, &drift):
		for _, d := range drift {
			r.differs(d.Text, d.Command)
		}
	case errors.Is(err, fault.ErrDrift), errors.Is(err, state.ErrUnreachable) && !errors.Is(err, config.ErrInvalid):
		texts := strings.Split(err.Error(), "\n")
		if more := len(texts) - 1; more > 2 {
			texts = []string{fmt.Sprintf("%s (and %d more)", texts[0], more)}
		}
		for _, text := range texts {
			r.differs(text, "")
			r.summary[len(r.summary)-1].unmade = errors.Is(err, state.ErrUnreachable)
		}
	default:
		r.Errors = append(r.Errors, oneLine(err.Error()))
		r.unable = true
	}
}

func inspect(ctx context.Context, f conflist.File) report {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	r := report{Network: f.Name(), File: f.Path, Persistent: rundir.NetworkDir(f.Name()).Persistent(),
		Tunnels: []ovs.TunnelStatus{}, Routes: []route{}, Containers: []container{}, Drift: []string{}, ByHand: []string{}}
	if f.OVS != nil {
		r.fail(r.inspectOVS(ctx, f.OVS))
	}
	if f.Routes != nil {
		r.inspectRoutes(ctx, f)
	} else if missing, err := f.MissingRoutes(ctx); err == nil && missing != "" {
		r.differs(missing, "")
	}
	return r
}

// know notes which node this host is, and who its peers are.
func (r *report) know(m nodes.Topology) {
	r.Node, r.Address, r.Peers = m.Self.Name, m.Self.Address.String(), len(m.Peers)
	if !m.Fan.IsZero() {
		r.Underlay = m.Fan.Underlay.String()
	}
}

func (r *report) inspectOVS(ctx context.Context, c *config.Network) error {
	r.Segment = string(c.Segment)
	n, err := network.Open(ctx, c)
	if err != nil {
		return err
	}
	defer n.OVS.Close()
	r.know(n.Topology)
	if err := ovs.VswitchdServes(ctx, c.OVSDB); err != nil {
		r.differs(err.Error(), "")
	}
	if r.Bridge, err = linkState(ctx, c.Bridge); err != nil {
		return err
	}
	if r.Bridge.Datapath, _, err = n.OVS.DatapathType(ctx, c.Bridge); err != nil {
		return err
	}
	if state.UsesTunnelBridge(c) {
		if r.Transit, err = linkState(ctx, config.TransitLink(c.Bridge)); err != nil {
			return err
		}
	}
	if r.Tunnels, err = n.OVS.Tunnels(ctx, c.Name); err != nil {
		return err
	}
	if state.Encrypted(c) {
		if err := r.inspectWireGuard(ctx, n); err != nil {
			return err
		}
	}
	if state.OneTunnel(c) {
		if refused, err := ovs.Strangers(ctx, c.OVSDB, state.TunnelBridge(c)); err == nil && refused > 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("%d packets of hosts that are no peers were dropped", refused))
		}
	}
	if err := r.inspectContainers(ctx, n); err != nil {
		return err
	}
	want, mtu, err := n.Want(ctx)
	if err != nil {
		return err
	}
	oversized, err := attach.OversizedMTUs(ctx, n, mtu)
	if err != nil {
		return err
	}
	for _, text := range oversized {
		r.differs(text, "")
	}
	if unrouted := n.UnreachablePeers(); unrouted != "" {
		r.Notes = append(r.Notes, oneLine(unrouted)+": nothing gets to their containers by the tunnel")
	}
	changes, err := state.Check(ctx, want, n.Backends()...)
	if idle, failed := n.Dir.Unused(rundir.LeasesOVS, rundir.LeasesRoutes); failed == nil && idle && len(r.Containers) == 0 {
		r.unmade = len(changes) > 0 && changes[0].Old == nil && changes[0].Kind() == state.KindBridge
	}
	r.drift(changes)
	ports, failed := attach.DriftedPorts(ctx, n) // behind their bridge: commands are typed in this order
	r.drift(ports)
	return errors.Join(err, failed)
}

// A wireGuardPeer is a peer of an encrypted network, as --output json prints it.
type wireGuardPeer struct {
	Peer    string     `json:"peer"`
	Address netip.Addr `json:"address"`
	// State is up (there is a session), idle (there is none), or no key.
	State string `json:"state"`
	// Handshake is the last one, in RFC 3339; "" is none.
	Handshake string `json:"handshake,omitempty"`
	Received  uint64 `json:"rxBytes"`
	Sent      uint64 `json:"txBytes"`
	age       string
}

func (r *report) inspectWireGuard(ctx context.Context, n *network.Network) (err error) {
	if r.Transit, err = linkState(ctx, config.WireGuardName(n.Config.Bridge)); err != nil {
		return err
	}
	if unkeyed := n.Unkeyed(); unkeyed != "" {
		r.Notes = append(r.Notes, oneLine(unkeyed)+": nothing gets to their containers")
	}
	if r.Transit.State == "missing" {
		return nil // the missing link is reported as drift
	}
	wrong, err := conflist.WrongKey(n)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if wrong != "" {
		r.differs(wrong, "")
	}
	peers, err := conflist.WireGuardPeers(ctx, n)
	for _, p := range peers {
		w := wireGuardPeer{Peer: p.Node.Name, Address: p.Node.Address, State: p.State, Received: p.Received, Sent: p.Sent, age: p.Age()}
		if !p.Handshake.IsZero() {
			w.Handshake = p.Handshake.Format(time.RFC3339)
		}
		r.WireGuard = append(r.WireGuard, w)
	}
	return err
}

func linkState(ctx context.Context, name string) (*link, error) {
	l, err := kernel.LinkByName(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return &link{Name: name, State: "missing"}, nil
	}
	if err != nil {
		return nil, err
	}
	s := "down"
	if l.Up {
		s = "up"
	}
	return &link{Name: name, State: s, MAC: l.MAC, MTU: l.MTU}, nil
}

// differs adds a difference.
func (r *report) differs(text, byHand string) {
	text = oneLine(text)
	r.summary = append(r.summary, summary{text, len(r.Drift), false})
	r.Drift, r.ByHand = append(r.Drift, text), append(r.ByHand, oneLine(byHand))
}

func (r *report) drift(changes []state.Change) {
	for _, g := range state.Groups(changes) {
		_, foreign := g.Changes[0].Old.(state.Foreign)
		r.foreign = r.foreign || foreign
		r.summary = append(r.summary, summary{oneLine(g.Text), len(r.Drift), g.Changes[0].New != nil && !foreign})
		for _, c := range g.Changes {
			byHand := ""
			if c.New != nil {
				byHand = oneLine(c.Command())
			}
			r.Drift, r.ByHand = append(r.Drift, oneLine(c.Drift())), append(r.ByHand, byHand)
		}
	}
}

func (r *report) inspectRoutes(ctx context.Context, f conflist.File) {
	rt, err := routes.Open(ctx, f.Routes, f.Bridge())
	if err != nil {
		r.fail(err)
		return
	}
	rt.UseNetwork(f.OVS)
	r.know(rt.Topology)
	want, err := rt.Want()
	if idle(f) && errors.Is(err, state.ErrUnreachable) && !errors.Is(err, config.ErrInvalid) {
		r.Notes = append(r.Notes, "no routes yet, they come with the first container: "+oneLine(err.Error()))
		return
	}
	r.fail(err)
	changes, err := state.Check(ctx, want, rt.Backends()...)
	r.fail(err)
	if err == nil {
		r.routes(want, changes)
		r.drift(changes)
	}
}

// idle reports whether the network has no containers and its gateway is made by another
// plugin with the first container.
func idle(f conflist.File) bool {
	leases, err := rundir.NetworkDir(f.Name()).Leases(rundir.LeasesRoutes)
	return f.OVS == nil && err == nil && len(leases) == 0
}

func (r *report) routes(want state.Set, changes []state.Change) {
	wrong := map[state.ID]string{}
	for _, c := range changes {
		switch {
		case c.New == nil:
		case c.Old == nil:
			wrong[c.New.ID()] = "missing"
		default:
			wrong[c.New.ID()] = "wrong"
		}
	}
	for _, o := range want.Sorted() {
		if rt, ok := o.(state.Route); ok {
			s := "ok"
			if w := wrong[o.ID()]; w != "" {
				s = w
			}
			r.Routes = append(r.Routes, route{rt.Dst.String(), o.String(), s})
		}
	}
}
