package page

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/state"
)

// A Network is a network of this host as the page shows it.
type Network struct {
	// Name is the network's, File the path of its conflist.
	Name, File string
	// Segment, Bridge and Tunnel are keys of the configuration; Tunnel is the type.
	Segment, Bridge, Tunnel string
	MTU, Peers, Tunnels     int
	Containers              []Container
	Drift                   []Drift
	// Underlay holds the peers where no list has them; "" where one does.
	Underlay string
	// Errors are why something could not be looked at.
	Errors []string
}

// A Container is an attachment that has a veth pair.
type Container struct {
	// Port is the name of the host's end.
	ID, IfName, Port string
	// Error is OVS's error about the port; "" is none.
	Error string
}

// A Drift is a difference from the wanted state, and the command that mends it.
type Drift struct{ Text, Command string }

// lookBound is how long checking one network may take.
const lookBound = 5 * time.Second

// Look checks the networks of this host whose conflists are in a directory. It changes
// nothing. Errors of a network are in Network.Errors; the error is about the directory.
func Look(ctx context.Context, dir string) ([]Network, error) {
	files, err := conflist.LoadDir(dir)
	list := make([]Network, 0, len(files))
	for _, f := range files {
		if f.SupersededBy == "" {
			list = append(list, look(ctx, f))
		}
	}
	return list, err
}

func look(ctx context.Context, f conflist.File) Network {
	ctx, cancel := context.WithTimeout(ctx, lookBound)
	defer cancel()
	n := Network{Name: f.Name(), File: f.Path}
	if f.Err != nil {
		n.fail(f.Err)
		return n
	}
	if f.OVS != nil {
		n.fail(n.lookOVS(ctx, f))
	}
	if f.Routes != nil {
		n.fail(n.lookRoutes(ctx, f))
	}
	return n
}

// fail adds the lines of an error to n.Errors.
func (n *Network) fail(err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		n.Errors = append(n.Errors, oneLine(line))
	}
}

func (n *Network) lookOVS(ctx context.Context, f conflist.File) error {
	c := f.OVS
	n.Segment, n.Bridge, n.Tunnel = string(c.Segment), c.Bridge, string(c.Tunnel.Type)
	open, err := network.Open(ctx, c)
	if err != nil {
		return err
	}
	defer open.OVS.Close()
	n.Peers = len(open.Topology.Peers)
	if fan := open.Topology.Fan; !fan.IsZero() {
		n.Underlay = fan.Underlay.String()
	}
	tunnels, err := open.OVS.Tunnels(ctx, c.Name)
	if err != nil {
		return err
	}
	n.Tunnels = len(tunnels)
	if err := n.lookContainers(ctx, open); err != nil {
		return err
	}
	changes, mtu, err := open.Check(ctx)
	n.MTU = mtu
	n.drift(f, changes)
	return err
}

func (n *Network) lookContainers(ctx context.Context, open *network.Network) error {
	live, err := network.LiveAttachments(ctx, n.Name)
	if err != nil {
		return err
	}
	ports, err := open.OVS.ContainerPorts(ctx, n.Name)
	if err != nil {
		return err
	}
	bad := map[string]string{}
	for _, p := range ports {
		bad[p.Name] = oneLine(p.Error)
	}
	for _, port := range slices.Sorted(maps.Keys(live)) {
		a := live[port]
		n.Containers = append(n.Containers, Container{oneLine(a.ContainerID), oneLine(a.IfName), port, bad[port]})
	}
	changes, err := attach.DriftedPorts(ctx, open)
	n.drift(conflist.File{Path: n.File}, changes)
	return err
}

func (n *Network) lookRoutes(ctx context.Context, f conflist.File) error {
	r, err := routes.Open(ctx, f.Routes, f.Bridge())
	if err != nil {
		return err
	}
	changes, err := r.Check(ctx)
	if f.OVS == nil && errors.Is(err, state.ErrUnreachable) {
		return nil // the routes come with the first container
	}
	n.drift(f, changes)
	return err
}

func (n *Network) drift(f conflist.File, changes []state.Change) {
	for _, c := range changes {
		n.Drift = append(n.Drift, Drift{oneLine(c.Drift()), "ovs-grectl up " + f.Path})
	}
}

// oneLine removes control characters from a text.
func oneLine(s string) string { return config.Printable(strings.TrimSpace(s)) }
