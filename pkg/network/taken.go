package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/state"
)

// CheckSubnetsFree returns an error if a container subnet of this host, or a part of it, is
// in use on this host for something else: on a link, by a route, by another network. The
// error wraps fault.ErrForeign and names the subnet and its user. A wider subnet or route
// that contains it is no conflict. All routes of the host are read, which is too slow for
// each ADD.
func (n *Network) CheckSubnetsFree(ctx context.Context) error {
	have, err := kernel.Prefixes(ctx)
	if err != nil {
		return err
	}
	ours := n.isOurs()
	var errs []error
	for _, subnet := range n.Topology.Self.Subnets {
		i := slices.IndexFunc(have, func(p kernel.Prefix) bool {
			return p.Bits() >= subnet.Bits() && subnet.Contains(p.Prefix.Addr()) && !ours(p)
		})
		if i >= 0 {
			errs = append(errs, fmt.Errorf("container subnet %s: %w: this host has %s already: give the network other subnets",
				subnet, fault.ErrForeign, have[i]))
		}
	}
	return errors.Join(errs...)
}

// RoutesOfOthers returns a text for each route of this host to a peer's container subnet, or
// a part of it, that is not this network's: packets by it do not go to the peer. It leaves
// out routes to subnets of this host's links, and those beside a route of this network to
// the same subnet, which has the lowest metric. All routes of the host are read.
func (n *Network) RoutesOfOthers(ctx context.Context) ([]string, error) {
	have, err := kernel.Prefixes(ctx)
	if err != nil {
		return nil, err
	}
	ours := n.isOurs()
	type route struct {
		table int
		to    netip.Prefix
	}
	made := map[route]bool{}
	for _, p := range have {
		made[route{p.Table, p.Prefix}] = made[route{p.Table, p.Prefix}] || p.Table != 0 && ours(p)
	}
	have = slices.DeleteFunc(have, func(p kernel.Prefix) bool {
		return p.Table == 0 || p.Proto == unix.RTPROT_KERNEL || made[route{p.Table, p.Prefix}]
	})
	var list []string
	for _, peer := range n.Topology.Holders() {
		for _, subnet := range peer.Subnets {
			for _, p := range have {
				if p.Bits() >= subnet.Bits() && subnet.Contains(p.Prefix.Addr()) {
					list = append(list, fmt.Sprintf("%s of %s: this host has %s", subnet, peer.Name, p))
				}
			}
		}
	}
	return list, nil
}

// isOurs returns a function that reports whether a prefix of this host belongs to this
// network: on a link of the current or the saved configuration, or by a route of ours. On
// a link that others use, too, an address that carries our protocol belongs to it if it is
// one of its gateways.
func (n *Network) isOurs() func(kernel.Prefix) bool {
	gateways := append(n.Topology.Self.Gateways(), savedGateways(n.Dir)...)
	var links []string
	add := func(c *config.Network) {
		links = append(links, state.GatewayLink(c), c.Bridge, state.TunnelBridge(c), config.WireGuardName(c.Bridge))
	}
	add(n.Config)
	if was, _ := config.Parse(n.Dir.SavedConfig()); was != nil && was.Name == n.Config.Name {
		add(was)
	}
	shared := n.Config.LinuxBridge != "" || n.Config.AdoptBridge
	return func(p kernel.Prefix) bool {
		switch {
		case !slices.Contains(links, p.Link):
			return p.Table != 0 && p.Proto == state.RouteProtocol && slices.Contains(gateways, p.Src)
		case shared && p.Link == state.GatewayLink(n.Config) && p.Table == 0 && p.Proto == state.RouteProtocol:
			return slices.Contains(gateways, p.Addr)
		}
		return true
	}
}

// CheckGiven returns an error if changes need a bridge that the configuration takes as
// given and that this host does not have. The error wraps fault.ErrUnavailable or
// nodes.ErrNotReady: somebody else may be about to make the bridge.
func CheckGiven(changes []state.Change) error {
	for _, ch := range changes {
		switch o := ch.New.(type) {
		case state.Bridge:
			if o.Adopted {
				return fmt.Errorf("%w: adoptBridge: there is no OVS bridge %s", fault.ErrUnavailable, o.Name)
			}
		case state.Link:
			if o.MaxMTU != 0 && ch.Old == nil {
				return fmt.Errorf("linuxBridge %s: %w: this host has no Linux bridge of this name", o.Name, nodes.ErrNotReady)
			}
		}
	}
	return nil
}
