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

// Port is the one that agents listen on, unless told otherwise.
const Port = 9178

// ErrNoMesh is wrapped by errors about a conflist without tunnels to draw.
var ErrNoMesh = errors.New("there is no mesh to draw")

// Targets are the peers' gateways, each to be asked from this host's gateway of
// the same family: the way that containers' packets go. A peer that shares no
// family with this host is not among them.
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

// Measure asks all peers of a network at the pace of probe.Quick, and the
// agents of the hosts, where they run, for theirs. The error wraps ErrNoMesh
// where the conflist does not name ovs-gre, and what network.Resolve's wraps.
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
	return &Mesh{Network: name, Self: m.Self.Name, Hosts: m.All(), Rows: all}
}

// Tunnels is what OVS says of a network's tunnels; none where it does not answer.
func Tunnels(ctx context.Context, f conflist.File) []ovs.TunnelStatus {
	conn, err := ovs.Dial(ctx, f.OVS.OVSDB)
	if err != nil {
		return nil
	}
	defer conn.Close()
	list, _ := conn.Tunnels(ctx, f.Name())
	return list
}
