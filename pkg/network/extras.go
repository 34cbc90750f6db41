package network

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/filter"
	"ovs-gre-cni/pkg/host"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/spec"
	"ovs-gre-cni/pkg/state"
)

// keepAdvertised sees to it that the host's own default route of IPv6, where it
// came by a router advertisement, survives that want switches forwarding on.
// It notes the links first: a call that is killed leaves no change unnoted.
func (n *Network) keepAdvertised(ctx context.Context, want state.Set) error {
	if _, asked := want[state.Sysctl{Key: kernel.Forwarding6}.ID()]; !asked || kernel.Forwards6() {
		return nil
	}
	links, err := kernel.Advertised(ctx)
	if err != nil || len(links) == 0 {
		return err
	}
	if err := n.Dir.Keep(links); err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		errs = append(errs, kernel.KeepAdvertised(l))
	}
	return errors.Join(errs...)
}

// unkeepAdvertised takes that back where forwarding is off again. While it is
// on, as we leave it, the route would go: then the link goes on listening,
// which without forwarding is no different from before.
func unkeepAdvertised(dir host.Dir) error {
	if kernel.Forwards6() {
		return nil
	}
	var errs []error
	for _, l := range dir.Kept() {
		errs = append(errs, kernel.UnkeepAdvertised(l))
	}
	return errors.Join(errs...)
}

// removeExtras takes back what no backend does: it is quick, and goes first, so
// that waiting for OVS leaves it the time.
func removeExtras(ctx context.Context, c *spec.Network, dir host.Dir) error {
	return errors.Join(unkeepAdvertised(dir), removeNeighbours(ctx, c, dir), filter.DropSpoofChecks(ctx, c.Name))
}

// removeNeighbours forgets this host's containers of a network on a gateway
// link that stays, as a Linux bridge does.
func removeNeighbours(ctx context.Context, c *spec.Network, dir host.Dir) error {
	if c.LinuxBridge == "" && !c.AdoptBridge {
		return nil // it goes with its bridge
	}
	nodes, self, err := dir.Handed()
	if err != nil {
		return nil // nothing was made
	}
	i := slices.IndexFunc(nodes, func(n spec.Node) bool { return n.Name == self })
	if i < 0 {
		return nil
	}
	return kernel.RemoveNeighbours(ctx, state.GatewayLink(c), func(n state.Neigh) bool {
		return slices.ContainsFunc(nodes[i].Subnets, func(s netip.Prefix) bool { return s.Contains(n.IP) })
	})
}
