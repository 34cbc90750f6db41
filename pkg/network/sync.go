package network

import (
	"context"
	"fmt"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// maxComparedTunnels is up to how many tunnels are compared at each ADD. Reading 32 takes a
// millisecond, reading 500 longer than making the container's port.
const maxComparedTunnels = 32

// IsSaved reports whether the configuration and the nodes are the saved ones, those that
// the host state was last made of, and no removal is pending. If not, Sync is needed.
func (n *Network) IsSaved() bool {
	return n.Dir.IsSaved(n.Topology, savedConfig(n.Config)) && len(n.Dir.PendingRemovals()) == 0
}

// Sync makes the wanted host state and removes objects of the network that are not wanted
// any more. It holds the network's lock. It returns the changes, those that failed
// included, and the MTU inside containers, in bytes. The error wraps config.ErrInvalid
// where containers are attached to another bridge than the configured one.
func (n *Network) Sync(ctx context.Context) (changes []state.Change, mtu int, err error) {
	return n.sync(ctx, func() error { return n.checkBridgeUnchanged(ctx) })
}

// SyncToNewBridge is Sync, but accepts another bridge; the caller moves the containers.
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

// checkBridgeUnchanged returns an error if containers are attached to the saved bridge and
// the configuration has another: removing the bridge would disconnect them.
func (n *Network) checkBridgeUnchanged(ctx context.Context) error {
	raw := n.Dir.SavedConfig()
	was, _ := config.Parse(raw)
	if raw == nil || was.Bridge == n.Config.Bridge {
		return nil // nothing was made yet, or the bridge is the same
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

// reconcile makes the host state want. It saves configuration and nodes before it changes
// anything, so that objects left by a failure are known to be the network's.
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
		err = CheckGiven(changes)
	}
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
		err = n.checkTunnelConflict(ctx)
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

// save saves the configuration, the nodes, and every gateway address that this host has
// had. The addresses are saved first, while the former nodes are still saved.
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

// bridgesRemade reports whether changes make a bridge whose link was already there and up.
// That is so after OVSDB was lost: the kernel's datapath has kept the links, and OVS
// makes them again, without addresses.
func bridgesRemade(changes []state.Change) bool {
	wasDown := map[string]bool{}
	for _, c := range changes {
		if l, ok := c.New.(state.Link); ok {
			was, _ := c.Old.(state.Link)
			wasDown[l.Name] = !was.Up
		}
	}
	return slices.ContainsFunc(changes, func(c state.Change) bool {
		return c.New != nil && c.Kind() == state.KindBridge && !wasDown[c.New.ID().Name]
	})
}

// removeStalePorts removes ports of a previous boot and makes pending removals.
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
