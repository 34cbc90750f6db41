package page

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/probe"
)

// Port is the TCP port that agents listen on by default.
const Port = 9178

// ErrNoMesh is wrapped by the error about a conflist that does not name ovs-gre.
var ErrNoMesh = errors.New("there is no mesh to draw")

// Targets are the peers' gateways, each with this host's gateway of the same family as the
// source, so that probes take the way of containers' packets. A peer without a gateway of a
// family of this host is left out.
func Targets(m nodes.Topology) []probe.Target {
	var list []probe.Target
	for _, p := range m.Peers {
		for _, to := range p.Gateways() {
			if from := sameFamily(m.Self.Gateways(), to); from.IsValid() {
				list = append(list, probe.Target{Name: p.Name, To: to, From: from})
				break
			}
		}
	}
	return list
}

func sameFamily(list []netip.Addr, as netip.Addr) netip.Addr {
	for _, a := range list {
		if a.Is6() == as.Is6() {
			return a
		}
	}
	return netip.Addr{}
}

// Measure probes all peers of a network at the rate probe.Quick, and gets the rows of the
// peers' agents where these run. The error wraps ErrNoMesh where the conflist does not name
// ovs-gre; others are as of network.Open.
func Measure(ctx context.Context, f conflist.File) (*Mesh, error) {
	if f.Err != nil {
		return nil, f.Err
	}
	if f.OVS == nil {
		return nil, fmt.Errorf("%s: %w: it does not name ovs-gre", f.Path, ErrNoMesh)
	}
	n, err := network.Open(ctx, f.OVS)
	if err != nil {
		return nil, err
	}
	defer n.OVS.Close()
	told := make(chan map[string]Told, 1)
	go func() { told <- AskAll(ctx, f.Name(), n.Topology, Port) }()
	var meter probe.Meter
	if err := meter.Run(ctx, probe.Quick, func() []probe.Target { return Targets(n.Topology) }); err != nil {
		return nil, err
	}
	tunnels, err := n.OVS.Tunnels(ctx, f.Name())
	if err != nil {
		return nil, err
	}
	return NewMesh(f.Name(), n.Topology, NewRow(f.Name(), n.Topology.Self.Name, n.Topology.Peers, tunnels, meter.Results()), <-told), nil
}

// NewMesh is a mesh as one host knows it: by its own row, and those that others
// have told.
func NewMesh(name string, m nodes.Topology, own Row, told map[string]Told) *Mesh {
	all := rows(told)
	all[m.Self.Name] = own
	mesh := &Mesh{Network: name, Self: m.Self.Name, Hosts: m.All(), Rows: all}
	if !m.Fan.IsZero() {
		mesh.Unlisted = m.Holders()[0].Name
	}
	return mesh
}

// Tunnels lists the tunnels of a network with their state; none where OVSDB does not answer.
func Tunnels(ctx context.Context, f conflist.File) []ovs.TunnelStatus {
	conn, err := ovs.Dial(ctx, f.OVS.OVSDB)
	if err != nil {
		return nil
	}
	defer conn.Close()
	list, _ := conn.Tunnels(ctx, f.Name())
	return list
}
