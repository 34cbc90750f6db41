package attach

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"ovs-gre-cni/pkg/host"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/spec"
	"ovs-gre-cni/pkg/state"
)

// settled are the live attachments but for those that an ADD is making.
func settled(ctx context.Context, n *network.Network) (map[string]spec.Attachment, error) {
	live, err := Live(ctx, n.Config.Name)
	if err != nil {
		return nil, err
	}
	leases, err := n.Dir.Leases(host.LeasesOVS)
	for _, l := range leases {
		if l.Busy {
			delete(live, l.Name)
		}
	}
	return live, err
}

// Adrift tells what is not as it should be at the host's ends of live
// attachments: their OVS ports and the links under them. Reattach mends it.
func Adrift(ctx context.Context, n *network.Network) ([]state.Change, error) {
	live, err := settled(ctx, n)
	if err != nil || len(live) == 0 {
		return nil, err
	}
	changes, err := host.Check(ctx, hostEnds(n.Config, live), ovs.NewPortBackend(n.OVS, n.Config.Name), kernel.NewBackend(kernel.Scope{}))
	return slices.DeleteFunc(changes, func(c state.Change) bool { return c.New == nil }), err
}

// Oversized tells of live attachments whose interface sends larger packets than
// fit into the tunnels by now: mtu is what a new container would get. Nothing
// but their owner can mend them.
func Oversized(ctx context.Context, n *network.Network, mtu int) ([]string, error) {
	live, err := settled(ctx, n)
	if err != nil {
		return nil, err
	}
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
