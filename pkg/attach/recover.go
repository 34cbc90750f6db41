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

// WithoutLease lists the live attachments that have lost their leases. It changes
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

// RestoreLeases gives live attachments a lease where theirs is lost: without one
// they do not count. It returns the attachments, but for those that an ADD is
// making.
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

// Reattach gives live attachments back what was lost: their leases, and their
// ports and neighbour entries where there are none. It returns these. What an
// ADD is making now is let be, and so is what a DEL takes away meanwhile.
// Without losses it changes nothing.
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
		// DEL takes the port first, then the link: it was in between.
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

// vanished names the ports of changes whose links have gone meanwhile.
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

// hostEnds are the OVS ports that attachments should have, and the links under
// them, which should be up.
func hostEnds(c *config.Network, attachments map[string]config.Attachment) state.Set {
	s := state.Set{}
	for _, a := range attachments {
		p := containerPort(Request{Config: c, Attachment: a})
		s.Put(p, state.Link{Name: p.Name, Up: true})
	}
	return s
}
