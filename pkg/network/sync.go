package network

import (
	"context"
	"fmt"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// maxComparedTunnels is how many tunnels are compared one by one. 32 take ovsdb-server
// and us a millisecond, 500 of them more than making the container's port.
const maxComparedTunnels = 32

// IsSaved reports whether the configuration and the nodes are those that host
// state was last made of, and no removal is pending. Without it, or without the
// bridge, there is no use in comparing.
func (n *Network) IsSaved() bool {
	return n.Dir.IsSaved(n.Topology, savedConfig(n.Config)) && len(n.Dir.PendingRemovals()) == 0
}

// Sync brings the host state about and prunes what the configuration no
// longer names. It holds the network's lock meanwhile. It returns the changes
// it meant to make, and the MTU inside containers. The error wraps
// config.ErrInvalid where the bridge is another than the one that containers are
// attached to.
func (n *Network) Sync(ctx context.Context) (changes []state.Change, mtu int, err error) {
	return n.sync(ctx, func() error { return n.checkBridgeUnchanged(ctx) })
}

// SyncToNewBridge is Sync that takes another bridge, too; the containers are for the
// caller to move.
func (n *Network) SyncToNewBridge(ctx context.Context) ([]state.Change, error) {
	changes, _, err := n.sync(ctx, func() error { return nil })
	return changes, err
}

func (n *Network) sync(ctx context.Context, may func() error) (changes []state.Change, mtu int, err error) {
	unlock, err := n.Dir.Lock(ctx, false)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	if err := may(); err != nil {
		return nil, 0, err
	}
	if n.Config.DatapathType != "netdev" {
		if err := n.OVS.EnsureHandlers(ctx); err != nil {
			return nil, 0, err
		}
	}
	want, mtu, err := n.Want(ctx)
	if err != nil {
		return nil, 0, err
	}
	changes, err = n.reconcile(ctx, want)
	return changes, mtu, err
}

// checkBridgeUnchanged refuses another bridge while containers are on the one that host state
// was made with: pruning that would cut them off.
func (n *Network) checkBridgeUnchanged(ctx context.Context) error {
	raw := n.Dir.SavedConfig()
	was, _ := config.Parse(raw)
	if raw == nil || was.Bridge == n.Config.Bridge {
		return nil // nothing is made yet, or it is the same
	}
	all, err := ReadAttachments(ctx, n.Config.Name)
	if err != nil {
		return err
	}
	attached := len(all.Idle()) > 0
	for _, l := range all.Leases {
		attached = attached || !l.Busy
	}
	if attached {
		return fmt.Errorf("%w: bridge %q: containers of network %s are attached to %s: detach them first, or move them with ovs-grectl up",
			config.ErrInvalid, n.Config.Bridge, n.Config.Name, was.Bridge)
	}
	return nil
}

// reconcile makes the host state what want says. Configuration and nodes are
// saved before anything changes: whatever a failure leaves can be told from
// what is another network's.
func (n *Network) reconcile(ctx context.Context, want state.Set) ([]state.Change, error) {
	same := n.Dir.IsSaved(n.Topology, savedConfig(n.Config))
	backends := backends(n.Config, n.OVS, n.Topology.Self.Gateways(), !same)
	if state.Encrypted(n.Config) {
		if err := rundir.SyncKey(n.Config.Name, n.Topology.Self.Key); err != nil {
			return nil, err
		}
	}
	changes, err := state.Check(ctx, want, backends...)
	if err == nil {
		err = state.CheckForeign(changes)
	}
	if err == nil && len(changes) > 0 {
		err = n.CheckSubnetsFree(ctx)
	}
	if err == nil {
		err = n.CheckNoLoop(ctx)
	}
	if err == nil && len(changes) > 0 {
		err = n.crossed(ctx)
	}
	if err == nil {
		err = n.keepAdvertised(ctx, want)
	}
	var made []state.Change
	if err == nil {
		made, err = n.leaveEncrypted(ctx)
	}
	if err == nil {
		err = n.save()
	}
	if err != nil {
		return made, err
	}
	done, err := state.Reconcile(ctx, want, changes, backends...)
	made = append(made, done...)
	if err == nil && bridgesRemade(made) {
		var again []state.Change
		if changes, err = state.Check(ctx, want, backends...); err == nil {
			again, err = state.Reconcile(ctx, want, changes, backends...)
			made = append(made, again...)
		}
	}
	if err == nil {
		err = n.removeStalePorts(ctx)
	}
	return made, err
}

// save keeps the configuration, the nodes, and every gateway address that this host
// has had: these first, while the nodes of before are still saved.
func (n *Network) save() error {
	self, conf := n.Topology.Self, savedConfig(n.Config)
	if n.Dir.IsSaved(n.Topology, conf) {
		return nil
	}
	if err := n.Dir.SaveGateways(append(savedGateways(n.Dir), self.Gateways()...)); err != nil {
		return err
	}
	return n.Dir.Save(n.Topology.All(), self.Name, conf)
}

// bridgesRemade reports whether OVS was told to make a bridge whose link was there and
// up already: the kernel's datapath keeps the links of a
// database that is lost, and OVS then makes them anew, without addresses.
func bridgesRemade(changes []state.Change) bool {
	raised := map[string]bool{}
	for _, c := range changes {
		if l, ok := c.New.(state.Link); ok {
			was, _ := c.Old.(state.Link)
			raised[l.Name] = !was.Up
		}
	}
	return slices.ContainsFunc(changes, func(c state.Change) bool {
		return c.New != nil && c.Kind() == state.KindBridge && !raised[c.New.ID().Name]
	})
}

// removeStalePorts takes out the ports of another boot and those that DEL could not.
func (n *Network) removeStalePorts(ctx context.Context) error {
	names := n.Dir.PendingRemovals()
	ports, err := n.OVS.ContainerPorts(ctx, n.Config.Name)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if p.FromPreviousBoot() {
			names = append(names, p.Name)
		}
	}
	_, err = n.OVS.DelPorts(ctx, n.Config.Name, names...)
	if err == nil {
		n.Dir.ClearPendingRemovals(names...)
	}
	return err
}
