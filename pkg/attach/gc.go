package attach

import (
	"context"
	"errors"
	"maps"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/rundir"
)

// GC removes the ports, links, leases and addresses of this network's containers that are
// not in valid. It goes on after errors and returns all of them. Attachments that an ADD
// is making stay, and so do other networks.
func GC(ctx context.Context, c *config.Network, valid []config.Attachment) error {
	conn, err := ovs.Dial(ctx, c.OVSDB)
	if err != nil {
		return err // without OVSDB the ports are not known
	}
	defer conn.Close()
	keep := map[string]bool{}
	for _, a := range valid {
		keep[config.PortName(c.Name, a.ContainerID, a.IfName)] = true
	}
	stale, busy, err := leftovers(ctx, c, conn, keep)
	errs := []error{err}
	for name, a := range stale {
		errs = append(errs, collect(ctx, c, conn, name, a))
	}
	if m := (Request{Config: c}).ipam(nil); m != nil {
		errs = append(errs, m.GC(ctx, append(busy, valid...)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return finish(ctx, c, conn)
}

// finish makes the pending removals, and removes the host state if no attachment is
// left.
func finish(ctx context.Context, c *config.Network, conn *ovs.Conn) error {
	dir := rundir.NetworkDir(c.Name)
	if err := finishPendingRemovals(ctx, c, conn); err != nil {
		return err
	}
	if unused, err := dir.Unused(rundir.LeasesOVS); err != nil || !unused {
		return err
	}
	_, err := network.Remove(ctx, c, conn, false)
	return err
}

// finishPendingRemovals removes the ports that DEL could not remove. It holds the
// network's lock, so that an ADD does not make one of them again at the same time.
func finishPendingRemovals(ctx context.Context, c *config.Network, conn *ovs.Conn) error {
	dir := rundir.NetworkDir(c.Name)
	if len(dir.PendingRemovals()) == 0 {
		return nil
	}
	unlock, err := dir.Lock(ctx, false)
	if err != nil {
		return err
	}
	defer unlock()
	gone := dir.PendingRemovals()
	if _, err := conn.DelPorts(ctx, c.Name, gone...); err != nil {
		return err
	}
	dir.ClearPendingRemovals(gone...)
	return nil
}

// leftovers returns the attachments that have a lease, a port or a link and are not in
// keep, by port, and in busy those that an ADD is making now.
func leftovers(ctx context.Context, c *config.Network, conn *ovs.Conn, keep map[string]bool) (
	stale map[string]config.Attachment, busy []config.Attachment, err error) {
	stale = map[string]config.Attachment{}
	live, err1 := network.LiveAttachments(ctx, c.Name)
	maps.Copy(stale, live)
	ports, err2 := conn.ContainerPorts(ctx, c.Name)
	for _, p := range ports {
		stale[p.Name] = config.Attachment{ContainerID: p.ContainerID, IfName: p.IfName}
	}
	// Leases are read last: an ADD takes its lease before it makes anything.
	leases, err3 := rundir.NetworkDir(c.Name).Leases(rundir.LeasesOVS)
	for _, l := range leases {
		if l.ContainerID != "" || stale[l.Name].ContainerID == "" {
			stale[l.Name] = l.Attachment // port and link tell more than an empty lease
		}
		if l.Busy {
			busy = append(busy, l.Attachment)
			delete(stale, l.Name)
		}
	}
	for name := range keep {
		delete(stale, name)
	}
	return stale, busy, errors.Join(err1, err2, err3)
}

// collect removes one attachment, unless an ADD is making it again.
func collect(ctx context.Context, c *config.Network, conn *ovs.Conn, name string, a config.Attachment) error {
	done, ok, err := rundir.NetworkDir(c.Name).TryLockLease(rundir.LeasesOVS, name)
	if err != nil || !ok {
		return err
	}
	defer done()
	_, err = conn.DelPorts(ctx, c.Name, name)
	held, err2 := rundir.NetworkDir(c.Name).HasLease(rundir.LeasesOVS, name)
	errs := []error{err, err2, removeAntispoof(ctx, c, name), delLink(ctx, c.Name, name, held)}
	r := Request{Config: c, Attachment: a}
	if m := r.ipam(nil); m != nil && a.ContainerID != "" {
		errs = append(errs, r.bounded(m.Del)(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return rundir.NetworkDir(c.Name).Release(rundir.LeasesOVS, name)
}
