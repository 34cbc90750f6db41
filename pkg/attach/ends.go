package attach

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/state"
)

// DriftedPorts returns the changes that the OVS ports and host ends of live attachments
// need to be as wanted. Reattach makes them.
func DriftedPorts(ctx context.Context, n *network.Network) ([]state.Change, error) {
	all, err := network.ReadAttachments(ctx, n.Config.Name)
	live := all.Idle()
	if err != nil || len(live) == 0 {
		return nil, err
	}
	changes, err := state.Check(ctx, hostEnds(n.Config, live), ovs.NewPortBackend(n.OVS, n.Config.Name), kernel.NewBackend(kernel.Scope{}))
	return slices.DeleteFunc(changes, func(c state.Change) bool { return c.New == nil }), err
}

// OversizedMTUs returns a text for each live attachment whose interface has a larger MTU
// than mtu, which is that of a new container, in bytes: its packets no longer fit into
// the tunnels. Only the container's owner can change it.
func OversizedMTUs(ctx context.Context, n *network.Network, mtu int) ([]string, error) {
	all, err := network.ReadAttachments(ctx, n.Config.Name)
	if err != nil {
		return nil, err
	}
	live := all.Idle()
	var list []string
	for _, port := range slices.Sorted(maps.Keys(live)) {
		if l, err := hostEnd(ctx, n.Config.Name, port); err != nil || l.MTU <= mtu {
			continue // gone in the meantime, or not larger
		}
		end, err := kernel.VethPeerOf(ctx, port)
		if err != nil || end.MTU <= mtu {
			continue // not visible, or changed in the container
		}
		a := live[port]
		list = append(list, fmt.Sprintf("container %s: the MTU of its %s is %d, and %d is all that fits: start it anew, or set it there",
			a.ContainerID, a.IfName, end.MTU, mtu))
	}
	return list, nil
}
