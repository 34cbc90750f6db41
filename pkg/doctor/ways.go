package doctor

import (
	"context"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ping"
	"ovs-gre-cni/pkg/state"
)

// Ways is what ping.Row measures a network from on this host. The error is
// about its nodes, or its MTU.
func Ways(ctx context.Context, f conflist.File) (ping.Host, error) {
	p := &host{files: []conflist.File{f}}
	p.addrs, _ = kernel.Addrs(ctx)
	n := p.network(ctx, f)
	if n.topologyErr != nil {
		return ping.Host{}, n.topologyErr
	}
	h := ping.Host{Mesh: n.topology, Source: n.source(), Gateways: n.gateways}
	var err error
	h.Underlay, _, err = kernel.UnderlayMTU(ctx, n.topology.Self.Address, addresses(n.topology.Peers))
	if err != nil {
		return h, err
	}
	if h.Inside = h.Underlay; n.OVS == nil {
		return h, nil
	}
	_, h.Inside, err = (&network.Network{Config: n.OVS, Topology: n.topology}).Want(ctx)
	h.Underlay = min(h.Underlay, h.Inside+state.Overhead(n.OVS.Tunnel, n.topology.Self.Address.Is6()))
	return h, err
}
