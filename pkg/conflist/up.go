package conflist

import (
	"context"
	"errors"
	"fmt"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// A Report is called with each change that was made to the host: a sign (+ made,
// - removed, ~ changed) and the command that makes the object.
type Report func(change string)

func (report Report) changes(changes []state.Change) {
	for _, c := range changes {
		report(c.String())
	}
}

// ErrNoRoutesYet is wrapped by Up's error where only the routes are missing. In a chain
// with another main plugin than ovs-gre the gateway address may be made only with the
// first container, and the routes need it.
var ErrNoRoutesYet = errors.New("no routes yet")

// Up makes the host state of a conflist's network and marks it persistent, so that it
// stays until Down. It attaches again the ports of running containers that OVS has
// lost, and removes ports and IPAM addresses from before the last boot. Calling it
// again changes nothing.
func Up(ctx context.Context, f File, report Report) error {
	if err := SetPersistent(ctx, f); err != nil {
		return err
	}
	if f.OVS != nil {
		if err := upOVS(ctx, f.OVS, report); err != nil {
			return err
		}
	}
	if f.Routes == nil {
		return nil
	}
	err := upRoutes(ctx, f, report)
	if f.OVS != nil && errors.Is(err, state.ErrUnreachable) {
		// A gateway address was there a moment ago. ovs-vswitchd takes a MAC address
		// back when it next goes through its ports; on the userspace datapath it takes
		// the link down for that, and the kernel its IPv6 addresses away.
		if err = upOVS(ctx, f.OVS, report); err == nil {
			err = upRoutes(ctx, f, report)
		}
	}
	return err
}

// SetPersistent marks the network as persistent under its lock. Callers do so before
// they make host state, so that the last DEL does not remove it meanwhile.
func SetPersistent(ctx context.Context, f File) error {
	dir := rundir.NetworkDir(f.Name())
	unlock, err := dir.Lock(ctx, true)
	if err != nil {
		return err
	}
	defer unlock()
	return dir.SetPersistent(true)
}

func upOVS(ctx context.Context, c *config.Network, report Report) error {
	n, err := network.Open(ctx, c)
	if err != nil {
		return err
	}
	defer n.OVS.Close()
	if err := ovs.VswitchdServes(ctx, c.OVSDB); err != nil && !errors.Is(err, ovs.ErrNoHandlers) {
		return err // at once: waiting for its answers would take the whole timeout
	}
	stale, err := portsOfPreviousBoot(ctx, n)
	if err != nil {
		return err
	}
	changes, err := n.SyncToNewBridge(ctx)
	report.changes(changes)
	if err != nil {
		return err
	}
	for _, p := range stale {
		report(fmt.Sprintf("- ovs-vsctl --if-exists del-port %s  # container %s %s, of a former boot", p.Name, p.ContainerID, p.IfName))
	}
	changes, err = attach.Reattach(ctx, n)
	report.changes(changes)
	if err != nil {
		return err
	}
	return freeLeakedAddresses(ctx, c, report)
}

// portsOfPreviousBoot returns the network's ports in OVSDB from before the last boot.
// SyncToNewBridge removes them.
func portsOfPreviousBoot(ctx context.Context, n *network.Network) ([]*ovs.ContainerPort, error) {
	ports, err := n.OVS.ContainerPorts(ctx, n.Config.Name)
	var stale []*ovs.ContainerPort
	for _, p := range ports {
		if p.FromPreviousBoot() {
			stale = append(stale, p)
		}
	}
	return stale, err
}

// freeLeakedAddresses frees the IPAM addresses of containers from before the last boot.
func freeLeakedAddresses(ctx context.Context, c *config.Network, report Report) error {
	began, err := bootTime()
	if err != nil {
		return err
	}
	freed, err := attach.FreeLeakedAddresses(ctx, c, began)
	for _, a := range freed {
		report(fmt.Sprintf("- rm %s  # container %s %s, of a former boot", a.Path, a.ContainerID, a.IfName))
	}
	return err
}

func upRoutes(ctx context.Context, f File, report Report) error {
	r, err := routes.Open(ctx, f.Routes, f.Bridge())
	if err != nil {
		return err
	}
	changes, err := r.Sync(ctx)
	report.changes(changes)
	if f.OVS == nil && errors.Is(err, state.ErrUnreachable) && !errors.Is(err, config.ErrInvalid) {
		return fmt.Errorf("%w: %w", ErrNoRoutesYet, err)
	}
	return err
}
