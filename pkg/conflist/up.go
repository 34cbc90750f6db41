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

// Report is told each thing that was done to the host: a sign (+ made, - removed,
// ~ changed) and the command that it stands for.
type Report func(change string)

func (did Report) changes(changes []state.Change) {
	for _, c := range changes {
		did(c.String())
	}
}

// ErrNoRoutesYet is wrapped by Up's error where all is done but the routes:
// behind a plugin that is not ours the gateway address may come only with the
// first container; the routes come with it.
var ErrNoRoutesYet = errors.New("no routes yet")

// Up makes the host state of the chain and keeps it, whatever containers come
// and go, until Down. Containers that have lost their ports get them back, what
// a former boot has left goes. Where nothing is amiss Up changes nothing.
func Up(ctx context.Context, f File, did Report) error {
	if err := SetPersistent(ctx, f); err != nil {
		return err
	}
	if f.OVS != nil {
		if err := upOVS(ctx, f.OVS, did); err != nil {
			return err
		}
	}
	if f.Routes != nil {
		return upRoutes(ctx, f, did)
	}
	return nil
}

// SetPersistent marks the network before anything is made, so that no container that
// leaves takes it along.
func SetPersistent(ctx context.Context, f File) error {
	dir := rundir.NetworkDir(f.Name())
	unlock, err := dir.Lock(ctx, true)
	if err != nil {
		return err
	}
	defer unlock()
	return dir.SetPersistent(true)
}

func upOVS(ctx context.Context, c *config.Network, did Report) error {
	n, err := network.Open(ctx, c)
	if err != nil {
		return err
	}
	defer n.OVS.Close()
	if err := ovs.VswitchdServes(ctx, c.OVSDB); err != nil && !errors.Is(err, ovs.ErrNoHandlers) {
		return err // at once, not after a wait for it
	}
	stale, err := portsOfPreviousBoot(ctx, n)
	if err != nil {
		return err
	}
	changes, err := n.SyncToNewBridge(ctx)
	did.changes(changes)
	if err != nil {
		return err
	}
	for _, p := range stale {
		did(fmt.Sprintf("- ovs-vsctl --if-exists del-port %s  # container %s %s, of a former boot", p.Name, p.ContainerID, p.IfName))
	}
	changes, err = attach.Reattach(ctx, n)
	did.changes(changes)
	if err != nil {
		return err
	}
	return freeLeakedAddresses(ctx, c, did)
}

// portsOfPreviousBoot lists the ports of another boot; Move takes them out.
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

// freeLeakedAddresses frees the addresses of containers that did not survive a reboot.
func freeLeakedAddresses(ctx context.Context, c *config.Network, did Report) error {
	began, err := bootTime()
	if err != nil {
		return err
	}
	freed, err := attach.FreeLeakedAddresses(ctx, c, began)
	for _, a := range freed {
		did(fmt.Sprintf("- rm %s  # container %s %s, of a former boot", a.Path, a.ContainerID, a.IfName))
	}
	return err
}

func upRoutes(ctx context.Context, f File, did Report) error {
	r, err := routes.Open(ctx, f.Routes, f.Bridge())
	if err != nil {
		return err
	}
	changes, err := r.Sync(ctx)
	did.changes(changes)
	if f.OVS == nil && errors.Is(err, state.ErrUnreachable) && !errors.Is(err, config.ErrInvalid) {
		return fmt.Errorf("%w: %w", ErrNoRoutesYet, err)
	}
	return err
}
