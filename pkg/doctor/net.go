package doctor

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// A networkInfo is a network as this host has it.
type networkInfo struct {
	conflist.File
	// topology is empty where meshErr says why.
	topology    nodes.Topology
	topologyErr error
	// netdev: the bridge is on OVS's userspace datapath.
	netdev bool
	// underlay is the link with this host's address; "" where none has it.
	underlay string
	// gateway is the link of the gateway addresses; up if it has one of them.
	gateway string
	up      bool
	// gateways are those of its addresses that this host has.
	gateways []netip.Addr
	// upError is why ovs-grectl up would be refused: something in the way that
	// is not ours. nil is nothing.
	upError error
	// changes are what drift has found, if it has compared.
	comparing sync.Mutex
	compared  bool
	changes   []state.Change
	// answers waits for what the peers have answered since ask. The error is about
	// the socket, as ping.Ask's.
	answers func() (answers, error)
}

// gather gathers what many checks need, and has the peers asked meanwhile.
func gather(whole context.Context, files []conflist.File) *host {
	ctx, cancel := context.WithTimeout(whole, checkTimeout/4)
	defer cancel()
	p := &host{files: files}
	p.addrs, _ = kernel.Addrs(ctx)
	for _, f := range files {
		if f.Err == nil && f.SupersededBy == "" {
			n := p.network(ctx, f)
			n.ask(whole)
			if n.topologyErr == nil {
				if err := n.findUpError(ctx); errors.Is(err, fault.ErrForeign) {
					n.upError = err
				}
			}
			p.nets = append(p.nets, n)
		}
	}
	return p
}

func (p *host) network(ctx context.Context, f conflist.File) *networkInfo {
	n := &networkInfo{File: f}
	n.topology, n.topologyErr = network.Resolve(ctx, f.Base())
	n.underlay = p.linkOf(n.topology.Self.Address)
	if n.topologyErr == nil {
		for _, gw := range n.topology.Self.Gateways() {
			if link := p.linkOf(gw); link != "" {
				n.gateway, n.up, n.gateways = link, true, append(n.gateways, gw)
			}
		}
	}
	if f.OVS != nil {
		n.gateway = state.GatewayLink(f.OVS)
		n.netdev = f.OVS.DatapathType == "netdev"
		if conn, err := ovs.Dial(ctx, f.OVS.OVSDB); err == nil {
			if typ, found, err := conn.DatapathType(ctx, f.OVS.Bridge); err == nil && found {
				n.netdev = typ == "netdev"
			}
			conn.Close()
		}
	}
	return n
}

// linkOf is the link that has an address; "" is none.
func (p *host) linkOf(a netip.Addr) string {
	i := slices.IndexFunc(p.addrs, func(have kernel.Addr) bool { return have.Prefix.Addr() == a })
	if i < 0 {
		return ""
	}
	return p.addrs[i].Link
}

// tunnels reports whether the network has any.
func (n *networkInfo) tunnels() bool { return n.OVS != nil && n.OVS.Tunnel.Type != config.TunnelNone }

// encrypted reports whether the network's packets go by WireGuard.
func (n *networkInfo) encrypted() bool { return n.OVS != nil && state.Encrypted(n.OVS) }

// transit is the name of the transit link, or of WireGuard's; "" where the
// network has neither.
func (n *networkInfo) transit() string {
	if n.encrypted() {
		return config.WireGuardName(n.OVS.Bridge)
	}
	if n.OVS == nil || !state.UsesTunnelBridge(n.OVS) {
		return ""
	}
	return config.TransitLink(n.OVS.Bridge)
}

// mode is how packets get to the peers' containers.
func (n *networkInfo) mode() config.Mode {
	if n.Routes == nil {
		return config.ModeTunnel
	}
	return n.Routes.Mode
}

// ctlCommand is ovs-grectl with a verb on the network's file.
func (n *networkInfo) ctlCommand(verb string) string {
	return "ovs-grectl " + verb + " " + quote(n.Path)
}

// editCommand is the command that opens the network's file.
func (n *networkInfo) editCommand() string { return "${EDITOR:-vi} " + quote(n.Path) }

// upCommand is ovs-grectl up or, where that would be refused, what comes first:
// what is in the way is its owner's to remove, and the file ours to change.
func (n *networkInfo) upCommand() string {
	if n.upError != nil {
		return n.editCommand()
	}
	return n.ctlCommand("up")
}

// findUpError finds out what would keep ovs-grectl up from changing anything.
func (n *networkInfo) findUpError(ctx context.Context) error {
	changes, err := n.drift(ctx)
	if err != nil || len(changes) == 0 {
		return nil // there is nothing to be refused, or the check of the host state says what it is
	}
	if err := state.CheckForeign(changes); err != nil {
		return err
	}
	if n.OVS == nil {
		return nil
	}
	open := network.Network{Config: n.OVS, Topology: n.topology, Dir: rundir.NetworkDir(n.Name())}
	return open.CheckSubnetsFree(ctx)
}

// hasSubnet reports whether this host has container subnets of a family.
func (n *networkInfo) hasSubnet(v6 bool) bool {
	return slices.ContainsFunc(n.topology.Self.Subnets, func(s netip.Prefix) bool { return s.Addr().Is6() == v6 })
}

// gatewayAddr is a gateway address of a family that this host has; the zero Addr is
// none.
func (n *networkInfo) gatewayAddr(v6 bool) netip.Addr {
	for _, gw := range n.gateways {
		if gw.Is6() == v6 {
			return gw
		}
	}
	return netip.Addr{}
}
