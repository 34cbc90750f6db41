package attach

import (
	"context"
	"fmt"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/state"
)

// Status tells whether Add can work. It changes nothing, and waits for OVSDB's
// answers alone. The error says why not, and wraps fault.ErrLimited where containers suffer too.
func Status(ctx context.Context, c *config.Network) error {
	if err := kernel.Confined(); err != nil {
		return err
	}
	n, err := network.Open(ctx, c)
	if err != nil {
		return err
	}
	defer n.OVS.Close()
	if err := ovs.VswitchdServes(ctx, c.OVSDB); err != nil {
		return fmt.Errorf("%w: %w", fault.ErrLimited, err)
	}
	if err := statusHost(ctx, n); err != nil {
		return err
	}
	if m := (Request{Config: c}).ipam(n.Topology.Self.Subnets); m != nil {
		return m.Status(ctx)
	}
	return nil
}

// statusHost looks for what ADD could not mend: something foreign in the way or
// in the place of a subnet, an adopted bridge that is not there. What has
// drifted the next ADD mends.
func statusHost(ctx context.Context, n *network.Network) error {
	want, _, err := n.Want(ctx)
	if err != nil {
		return err
	}
	changes, err := state.Check(ctx, want.Needed(), n.Backends()...)
	if err != nil {
		return err
	}
	for _, ch := range changes {
		if br, ok := ch.New.(state.Bridge); ok && br.Adopted {
			return fmt.Errorf("%w: adoptBridge: there is no OVS bridge %s", fault.ErrUnavailable, br.Name)
		}
	}
	if err := state.CheckForeign(changes); err != nil || len(changes) == 0 {
		return err
	}
	return n.CheckSubnetsFree(ctx)
}
