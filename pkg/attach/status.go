package attach

import (
	"context"
	"fmt"

	"ovs-gre-cni/pkg/host"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/spec"
	"ovs-gre-cni/pkg/state"
)

// Status tells whether Add can work. It changes nothing, and waits for OVSDB's
// answers alone. The error says why not, and wraps host.ErrLimited where containers suffer too.
func Status(ctx context.Context, c *spec.Network) error {
	if err := kernel.Confined(); err != nil {
		return err
	}
	n, err := network.Open(ctx, c)
	if err != nil {
		return err
	}
	defer n.OVS.Close()
	if err := ovs.VswitchdServes(ctx, c.OVSDB); err != nil {
		return fmt.Errorf("%w: %w", host.ErrLimited, err)
	}
	if err := statusHost(ctx, n); err != nil {
		return err
	}
	if m := newIPAM(Request{Config: c}, n.Mesh.Self.Subnets); m != nil {
		return m.status(ctx)
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
	changes, err := host.Check(ctx, want.Needed(), n.Backends()...)
	if err != nil {
		return err
	}
	for _, ch := range changes {
		if br, ok := ch.New.(state.Bridge); ok && br.Adopted {
			return fmt.Errorf("%w: adoptBridge: there is no OVS bridge %s", host.ErrUnavailable, br.Name)
		}
	}
	if err := host.InTheWay(changes); err != nil || len(changes) == 0 {
		return err
	}
	return n.Taken(ctx)
}
