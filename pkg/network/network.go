// Package network is one network on this host: what of bridges, tunnels,
// addresses and filter it should have, and how to get and lose it.
// Containers are package attach's business, routes package routes'.
package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// A Network is one network on this host, for one call.
type Network struct {
	Config   *config.Network
	Topology nodes.Topology
	Dir      rundir.Dir
	// OVS is an open connection.
	OVS *ovs.Conn
	// Unreachable are the peers that this host has no route to; Want finds
	// them. Their tunnels carry nothing, and nothing else suffers.
	Unreachable []config.Node
}

// Resolve loads the configuration's nodes and finds this host among them. The
// error wraps nodes.ErrNotReady or config.ErrInvalid, and in a user namespace
// kernel.ErrConfined.
func Resolve(ctx context.Context, b *config.Base) (nodes.Topology, error) {
	list, err := nodes.Configured(b)
	if err != nil {
		return nodes.Topology{}, err
	}
	local, err := kernel.LocalAddrs(ctx)
	if err != nil {
		return nodes.Topology{}, err
	}
	m, err := nodes.Resolve(list, b.Node, local)
	return m, kernel.Rootless(err)
}

// Open finds this host in the network and connects to OVSDB. The caller closes
// Network.OVS.
func Open(ctx context.Context, c *config.Network) (*Network, error) {
	m, err := Resolve(ctx, &c.Base)
	if err != nil {
		return nil, err
	}
	conn, err := ovs.Dial(ctx, c.OVSDB)
	if err != nil {
		return nil, kernel.Rootless(err)
	}
	return &Network{Config: c, Topology: m, Dir: rundir.NetworkDir(c.Name), OVS: conn}, nil
}

// Want returns the desired host state and the MTU inside containers.
func (n *Network) Want(ctx context.Context) (state.Set, int, error) {
	var peers []netip.Addr
	for _, p := range n.Topology.Peers {
		peers = append(peers, p.Address)
	}
	underlay, unreachable, err := kernel.UnderlayMTU(ctx, n.Topology.Self.Address, peers)
	if err != nil {
		return nil, 0, err
	}
	n.Unreachable = nil
	for _, a := range unreachable {
		n.Unreachable = append(n.Unreachable, n.Topology.Peers[slices.Index(peers, a)])
	}
	mtu, err := state.MTU(n.Config, n.Topology, underlay)
	if err != nil {
		return nil, 0, err
	}
	c := *n.Config
	if n.OVS != nil && c.AdoptBridge && c.DatapathType == "" {
		// The tunnels' bridge has the datapath of the containers'.
		if c.DatapathType, _, err = n.OVS.DatapathType(ctx, c.Bridge); err != nil {
			return nil, 0, err
		}
	}
	want := state.Desired(&c, n.Topology, mtu)
	if kernel.CanProbe() {
		want.Put(state.Probes(&c, n.Topology)...)
	}
	return want, mtu, nil
}

// UnreachablePeers says to which peers this host has no route; "" is to each it has one.
// It is about what Want has found.
func (n *Network) UnreachablePeers() string {
	const most = 5
	var names []string
	for _, p := range n.Unreachable {
		names = append(names, p.String())
	}
	switch more := len(names) - most; {
	case len(names) == 0:
		return ""
	case more > 1:
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return "this host has no route to " + strings.Join(names, ", ")
}

// Backends are where the network's host state lives.
func (n *Network) Backends() []state.Backend {
	return backends(n.Config, n.OVS, n.Topology.Self.Gateways())
}

// savedGateways are the gateway addresses that this host has had in the network.
// A version before 0.2.0 saved only those of the nodes.
func savedGateways(dir rundir.Dir) []netip.Addr {
	gateways := dir.Gateways()
	list, self, err := dir.SavedNodes()
	if err != nil {
		return gateways
	}
	for _, node := range list {
		if node.Name == self {
			gateways = append(gateways, node.Gateways()...)
		}
	}
	return gateways
}

// backends returns the backends of a network. On a gateway link that is not
// ours, the network's addresses are these gateways and those that host state
// was made of.
func backends(c *config.Network, conn *ovs.Conn, gateways []netip.Addr) []state.Backend {
	var scope kernel.Scope
	if state.UsesTunnelBridge(c) { // else a link of that name is another's
		scope.AddrLinks, scope.ProbeLinks = []string{state.TunnelBridge(c)}, []string{state.TunnelBridge(c)}
	}
	if c.LinuxBridge != "" || c.AdoptBridge {
		scope.SharedLinks = []string{state.GatewayLink(c)}
		scope.Gateways = append(gateways, savedGateways(rundir.NetworkDir(c.Name))...)
	} else {
		scope.AddrLinks = append(scope.AddrLinks, c.Bridge)
	}
	return []state.Backend{ovs.NewBackend(conn, c.Name), kernel.NewBackend(scope), firewall.NewBackend(c.Name)}
}

// savedConfig is the configuration as Remove will read it, without what belongs to
// one container.
func savedConfig(c *config.Network) []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(c.Raw, &fields) != nil {
		return nil
	}
	for _, k := range []string{"prevResult", "runtimeConfig", "args", "cni.dev/valid-attachments", "cni.dev/attachments"} {
		delete(fields, k)
	}
	raw, _ := json.Marshal(fields)
	return raw
}
