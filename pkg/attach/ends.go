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

// DriftedPorts tells what is not as it should be at the host's ends of live
// attachments: their OVS ports and the links under them. Reattach mends it.
func DriftedPorts(ctx context.Context, n *network.Network) ([]state.Change, error) {
	all, err := network.ReadAttachments(ctx, n.Config.Name)
	live := all.Idle()
	if err != nil || len(live) == 0 {
		return nil, err
	}
	changes, err := state.Check(ctx, hostEnds(n.Config, live), ovs.NewPortBackend(n.OVS, n.Config.Name), kernel.NewBackend(kernel.Scope{}))
	return slices.DeleteFunc(changes, func(c state.Change) bool { return c.New == nil }), err
}

// OversizedMTUs tells of live attachments whose interface sends larger packets than
// fit into the tunnels by now: mtu is what a new container would get. Nothing
// but their owner can mend them.
func OversizedMTUs(ctx context.Context, n *network.Network, mtu int) ([]string, error) {
	all, err := network.ReadAttachments(ctx, n.Config.Name)
	if err != nil {
		return nil, err
	}
	live := all.Idle()
	var list []string
	for _, port := range slices.Sorted(maps.Keys(live)) {
		if l, err := hostEnd(ctx, n.Config.Name, port); err != nil || l.MTU <= mtu {
			continue // gone meanwhile, or it fits
		}
		end, err := kernel.VethPeerOf(ctx, port)
		if err != nil || end.MTU <= mtu {
			continue // out of sight, or mended in the container
		}
		a := live[port]
		list = append(list, fmt.Sprintf("container %s: the MTU of its %s is %d, and %d is all that fits: start it anew, or set it there",
			a.ContainerID, a.IfName, end.MTU, mtu))
	}
	return list, nil
}
