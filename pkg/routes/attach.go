package routes

import (
	"context"
	"errors"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// undoBound is how long an Attach that failed may take to undo its steps.
const undoBound = 5 * time.Second

// Attach takes a lease of the routes for an attachment and syncs them. They stay until
// the last lease is released by Detach. After an error it undoes what it has done.
func Attach(ctx context.Context, c *config.Routes, bridge string, l rundir.Lease) error {
	r, err := openBrief(ctx, c, bridge)
	if err != nil {
		return err
	}
	held, err := r.Dir.HasLease(rundir.LeasesRoutes, l.Name)
	if err != nil {
		return err
	}
	_, done, err := r.Dir.Acquire(ctx, rundir.LeasesRoutes, l)
	if err == nil {
		defer done()
		_, err = r.Sync(ctx)
	} else if !rundir.MayHaveAcquired(err) {
		return err
	}
	if err != nil && held {
		return err // the lease is that of an earlier ADD
	}
	if err != nil {
		// The failed step may have used up the time.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
		defer cancel()
		return errors.Join(err, Detach(ctx, c, bridge, l.Name))
	}
	return nil
}

// Detach releases an attachment's lease, and removes the routes if it was the last one. A
// lease that is gone already is no error. The error wraps config.ErrInvalid where Attach
// would refuse the network's name.
func Detach(ctx context.Context, c *config.Routes, bridge, lease string) error {
	if err := config.CheckName(c.Name); err != nil {
		return err
	}
	dir := rundir.NetworkDir(c.Name)
	if !dir.Exists() {
		return nil
	}
	if err := dir.Release(rundir.LeasesRoutes, lease); err != nil {
		return err
	}
	return removeIfUnused(ctx, c, bridge, lease)
}

// removeIfUnused removes the routes if no lease is left. leaving is the attachment that is
// being detached, "" for none: its link still exists, because route-sync's DEL runs before
// ovs-gre's.
func removeIfUnused(ctx context.Context, c *config.Routes, bridge, leaving string) error {
	if unused, err := rundir.NetworkDir(c.Name).Unused(rundir.LeasesRoutes); err != nil || !unused {
		return err
	}
	_, err := remove(ctx, c, bridge, leaving, false)
	return err
}

// GC releases the leases of attachments that are not in valid, except for those that an
// ADD is making.
func GC(ctx context.Context, c *config.Routes, valid []config.Attachment) error {
	keep := map[string]config.Attachment{}
	for _, a := range valid {
		keep[config.PortName(c.Name, a.ContainerID, a.IfName)] = a
	}
	return Sweep(ctx, c, func(context.Context, string) (map[string]config.Attachment, error) { return keep, nil })
}

// Sweep is GC with the attachments that live returns, by the names of their ports. It calls
// live after it has listed the leases, so that attachments made in between stay.
func Sweep(ctx context.Context, c *config.Routes,
	live func(ctx context.Context, network string) (map[string]config.Attachment, error)) error {
	dir := rundir.NetworkDir(c.Name)
	if !dir.Exists() {
		return nil
	}
	leases, err := dir.Leases(rundir.LeasesRoutes)
	errs := []error{err}
	keep, err := live(ctx, c.Name)
	if err != nil {
		return err
	}
	for _, l := range leases {
		if _, ok := keep[l.Name]; !ok && !l.Busy {
			errs = append(errs, releaseLease(dir, l.Name))
		}
	}
	return errors.Join(append(errs, removeIfUnused(ctx, c, "", ""))...)
}

// releaseLease releases a lease, unless an ADD is making its attachment again.
func releaseLease(dir rundir.Dir, lease string) error {
	done, ok, err := dir.TryLockLease(rundir.LeasesRoutes, lease)
	if err != nil || !ok {
		return err
	}
	defer done()
	return dir.Release(rundir.LeasesRoutes, lease)
}

// Status returns nil if Attach can work, else an error that says why not. Missing routes
// are no error, since the next Attach makes them. Status changes nothing.
func Status(ctx context.Context, c *config.Routes) error {
	dir := rundir.NetworkDir(c.Name)
	if err := dir.CheckWritable(); err != nil {
		return err
	}
	unused, err := dir.Unused(rundir.LeasesRoutes)
	if err != nil {
		return err
	}
	if unused {
		if !c.HasNodes() {
			return nil // ovs-gre hands nodes on with the first container
		}
		addrs, err := kernel.Addrs(ctx)
		if err == nil {
			_, err = resolve(c, dir, addrs, nil)
		}
		return err
	}
	if was, err := config.ParseRoutes(dir.SavedRoutesConfig()); err == nil && c.Bridge == "" {
		c.Bridge = was.Bridge // STATUS has no previous result
	}
	r, err := Open(ctx, c, "")
	if err != nil {
		return err
	}
	changes, err := r.Check(ctx)
	if errors.Is(err, state.ErrUnreachable) && !errors.Is(err, config.ErrInvalid) {
		return nil // ovs-gre makes the link with the next container
	}
	if err != nil {
		return err
	}
	return state.CheckForeign(changes)
}
