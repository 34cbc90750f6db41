package attach

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// WithoutLease lists the live attachments of a network whose leases are lost. It changes
// nothing.
func WithoutLease(ctx context.Context, name string) ([]config.Attachment, error) {
	all, err := network.ReadAttachments(ctx, name)
	if err != nil {
		return nil, err
	}
	lost := all.WithoutLease()
	var list []config.Attachment
	for _, port := range slices.Sorted(maps.Keys(lost)) {
		// A DEL removes the link before it releases the lease.
		if _, err := hostEnd(ctx, name, port); err == nil {
			list = append(list, lost[port])
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return list, nil
}

// RestoreLeases makes the leases of live attachments again that are lost: without a lease
// an attachment does not keep the host state. It returns the live attachments by port,
// without those that an ADD is making.
func RestoreLeases(ctx context.Context, name string) (map[string]config.Attachment, error) {
	all, err := network.ReadAttachments(ctx, name)
	if err != nil {
		return nil, err
	}
	live, dir := all.Idle(), rundir.NetworkDir(name)
	for port, a := range all.WithoutLease() {
		_, done, err := dir.Acquire(ctx, rundir.LeasesOVS, rundir.Lease{Name: port, Attachment: a})
		if err != nil {
			return nil, err
		}
		if _, err = hostEnd(ctx, name, port); errors.Is(err, fs.ErrNotExist) {
			err = dir.Release(rundir.LeasesOVS, port) // a DEL has just released it
			delete(live, port)
		}
		done()
		if err != nil {
			return nil, err
		}
	}
	return live, nil
}

// Reattach makes the leases, OVS ports, neighbour entries and spoof checks of live
// attachments again that are lost, and returns the changes. Attachments that an ADD is
// making, or a DEL is removing, are left out. If nothing is lost it changes nothing.
func Reattach(ctx context.Context, n *network.Network) ([]state.Change, error) {
	var made []state.Change
	for {
		live, err := RestoreLeases(ctx, n.Config.Name)
		if err != nil || len(live) == 0 {
			return made, err
		}
		changes, refused := state.CreateAndUpdate(ctx, hostEnds(n.Config, live),
			ovs.NewPortBackend(n.OVS, n.Config.Name), kernel.NewBackend(kernel.Scope{}))
		gone, err := vanished(ctx, n.Config.Name, changes)
		if err != nil {
			return made, err
		}
		if len(gone) == 0 {
			again, err := restoreAntispoof(ctx, n, live)
			return append(append(made, changes...), again...), errors.Join(refused, err)
		}
		// A DEL was between removing the port and removing the link.
		for _, c := range changes {
			if !slices.Contains(gone, c.New.ID().Name) {
				made = append(made, c)
			}
		}
		if _, err := n.OVS.DelPorts(ctx, n.Config.Name, gone...); err != nil {
			return made, err
		}
	}
}

// vanished returns the ports of changes whose links are gone.
func vanished(ctx context.Context, network string, changes []state.Change) ([]string, error) {
	var gone []string
	for _, c := range changes {
		name := c.New.ID().Name
		_, err := hostEnd(ctx, network, name)
		if errors.Is(err, fs.ErrNotExist) {
			gone, err = append(gone, name), nil
		}
		if err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// hostEnds are the wanted OVS ports of attachments, and their links, which must be up.
func hostEnds(c *config.Network, attachments map[string]config.Attachment) state.Set {
	s := state.Set{}
	for _, a := range attachments {
		p := containerPort(Request{Config: c, Attachment: a})
		s.Put(p, state.Link{Name: p.Name, Up: true})
	}
	return s
}
