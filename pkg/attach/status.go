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

// Status returns nil if Add can work, else an error that says why not. The error wraps
// fault.ErrLimited where existing containers are affected, too. Status changes nothing.
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
	if err := n.Dir.CheckWritable(); err != nil {
		return err
	}
	if err := statusHost(ctx, n); err != nil {
		return err
	}
	if m := (Request{Config: c}).ipam(n.Topology.Self.Subnets); m != nil {
		return m.Status(ctx)
	}
	return nil
}

// statusHost returns an error about a host state that ADD cannot make: a foreign object is
// in the way, a subnet is in use, an adopted bridge does not exist. Other differences are
// no error, since the next ADD corrects them.
func statusHost(ctx context.Context, n *network.Network) error {
	want, _, err := n.Want(ctx)
	if err != nil {
		return err
	}
	changes, err := state.Check(ctx, want.Needed(), n.Backends()...)
	if err != nil {
		return err
	}
	if err := network.CheckGiven(changes); err != nil {
		return err
	}
	if err := state.CheckForeign(changes); err != nil || len(changes) == 0 {
		return err
	}
	return n.CheckSubnetsFree(ctx)
}
