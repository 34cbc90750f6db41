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

// undoBound is how long taking back a failed Attach may take.
const undoBound = 5 * time.Second

// Attach sees to the routes on behalf of an attachment, which keeps them until
// it is detached. An error leaves nothing behind.
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
		return err // the claim is an earlier ADD's
	}
	if err != nil {
		// What failed may have used up the time, and was perhaps the network's lock.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
		defer cancel()
		return errors.Join(err, Detach(ctx, c, bridge, l.Name))
	}
	return nil
}

// Detach gives an attachment's claim up; with the last one go the routes. What
// is already gone is no error. It wraps config.ErrInvalid where the name is none
// that Attach would take.
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

// removeIfUnused removes the routes if nobody claims them any more. It looks although a
// claim may not have been there: a call that was killed may have got that far.
// The one that leaves, "" for none, still has its link: it is detached from the
// network after it is from its routes.
func removeIfUnused(ctx context.Context, c *config.Routes, bridge, leaving string) error {
	if unused, err := rundir.NetworkDir(c.Name).Unused(rundir.LeasesRoutes); err != nil || !unused {
		return err
	}
	_, err := remove(ctx, c, bridge, leaving, false)
	return err
}

// GC gives up the claims of attachments that are not in valid, but for those
// that an ADD is making now.
func GC(ctx context.Context, c *config.Routes, valid []config.Attachment) error {
	keep := map[string]config.Attachment{}
	for _, a := range valid {
		keep[config.PortName(c.Name, a.ContainerID, a.IfName)] = a
	}
	return Sweep(ctx, c, func(context.Context, string) (map[string]config.Attachment, error) { return keep, nil })
}

// Sweep is GC that asks live for the network's valid attachments, by the names
// of their ports, after it has listed the claims: what comes in between stays.
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

// releaseLease releases a claim, unless an ADD has come back to it meanwhile.
func releaseLease(dir rundir.Dir, lease string) error {
	done, ok, err := dir.TryLockLease(rundir.LeasesRoutes, lease)
	if err != nil || !ok {
		return err
	}
	defer done()
	return dir.Release(rundir.LeasesRoutes, lease)
}

// Status tells whether Attach can work. It changes nothing. Routes that are
// missing the next Attach makes.
func Status(ctx context.Context, c *config.Routes) error {
	dir := rundir.NetworkDir(c.Name)
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
		return nil // the plugin before makes the way with the next container
	}
	if err != nil {
		return err
	}
	return state.CheckForeign(changes)
}
