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

// LiveAttachments returns the network's attachments whose veth pair is there, by the names
// of their ports: where the host's end is, the container's is in a namespace
// that still exists. The links themselves say whose they are.
func LiveAttachments(ctx context.Context, network string) (map[string]config.Attachment, error) {
	live := map[string]config.Attachment{}
	links, err := kernel.LinksByAliasPrefix(ctx, config.AliasPrefix(network))
	for _, l := range links {
		if a, port, ok := config.ParseAlias(network, l.Name, l.Alias); ok && l.Kind == "veth" {
			live[port] = a
		}
	}
	return live, err
}

// WithoutLease lists the live attachments that have lost their leases. It changes
// nothing.
func WithoutLease(ctx context.Context, network string) ([]config.Attachment, error) {
	live, err := LiveAttachments(ctx, network)
	if err != nil {
		return nil, err
	}
	var lost []config.Attachment
	for _, name := range slices.Sorted(maps.Keys(live)) {
		held, err := rundir.NetworkDir(network).HasLease(rundir.LeasesOVS, name)
		if err != nil {
			return nil, err
		}
		if held {
			continue
		}
		// A DEL takes the link before it gives the lease back.
		if _, err := hostEnd(ctx, network, name); err == nil {
			lost = append(lost, live[name])
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return lost, nil
}

// RestoreLeases gives live attachments a lease where theirs is lost: what has none is
// not counted. It returns the attachments, but for those that an ADD is making.
func RestoreLeases(ctx context.Context, network string) (map[string]config.Attachment, error) {
	live, err := LiveAttachments(ctx, network)
	if err != nil {
		return nil, err
	}
	dir := rundir.NetworkDir(network)
	leases, err := dir.Leases(rundir.LeasesOVS)
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	for _, l := range leases {
		held[l.Name] = true
		if l.Busy {
			delete(live, l.Name)
		}
	}
	for name, a := range live {
		if held[name] {
			continue
		}
		_, done, err := dir.Acquire(ctx, rundir.LeasesOVS, rundir.Lease{Name: name, Attachment: a})
		if err != nil {
			return nil, err
		}
		if _, err = hostEnd(ctx, network, name); errors.Is(err, fs.ErrNotExist) {
			err = dir.Release(rundir.LeasesOVS, name) // a DEL has just given it back
			delete(live, name)
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
