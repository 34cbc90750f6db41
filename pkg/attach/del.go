package attach

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/rundir"
)

// ovsBound is how long DEL waits for OVSDB, restBound how long for each other step.
// Both grow in proportion if timeoutSeconds is 40 or more, as on a slow machine.
const (
	ovsBound  = time.Second
	restBound = 2 * time.Second
	// undoBound is how long an ADD that failed may take to undo its steps.
	undoBound = 5 * time.Second
)

// bound is a bound in proportion to timeoutSeconds.
func (r Request) bound(d time.Duration) time.Duration {
	return max(d, d*(r.Config.Timeout/(20*time.Second)))
}

// Del detaches a container from its network. It needs neither the container's namespace
// nor the result of ADD. Without OVSDB the OVS port is noted as a pending removal, and
// the next call removes it. Del runs all steps, also after errors; objects that are gone
// already are no error. Keys that the configuration has lost since ADD are taken from
// the saved one. The error wraps config.ErrInvalid where ADD would refuse the name.
func Del(ctx context.Context, r Request) error {
	if err := config.CheckName(r.Config.Name); err != nil {
		return err
	}
	r.Config = r.Config.Completed(r.dir().SavedConfig())
	if over, err := r.delConfined(); over {
		return err
	}
	// Each step has its own bound, so that one that waits leaves the others theirs.
	ctx = context.WithoutCancel(ctx)
	conn, err := delPort(ctx, r)
	if conn != nil {
		defer conn.Close()
	}
	rest, cancel := context.WithTimeout(ctx, r.bound(restBound))
	defer cancel()
	errs := []error{err, r.removeAntispoof(rest), r.delLink(rest)}
	if m := r.ipam(nil); m != nil {
		errs = append(errs, m.Del(rest))
	}
	if err := errors.Join(errs...); err != nil {
		return err // the lease stays, so that the next DEL or GC tries again
	}
	return release(ctx, r, conn)
}

// delConfined reports whether DEL is over because this process cannot change the host's
// network, and so cannot have attached the container: without an error, unless there is
// a lease of the attachment.
func (r Request) delConfined() (over bool, err error) {
	confined := kernel.Confined()
	held, err := r.dir().HasLease(rundir.LeasesOVS, r.port())
	switch {
	case confined != nil && held:
		return true, confined
	case confined != nil:
		return true, nil
	default: // root's directory cannot be read from a user namespace
		return err != nil && kernel.InUserNamespace(), nil
	}
}

// delPort removes the port from OVSDB and returns the connection. Where OVSDB does not
// answer it notes a pending removal and returns nil.
func delPort(ctx context.Context, r Request) (*ovs.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.bound(ovsBound))
	defer cancel()
	conn, err := ovs.Dial(ctx, r.Config.OVSDB)
	if err == nil {
		_, err = conn.DelPorts(ctx, r.Config.Name, r.port())
	}
	if err == nil {
		r.dir().ClearPendingRemovals(r.port()) // an ADD that failed may have noted it
		return conn, r.dir().AdvanceMark(conn.NextCfg())
	}
	conn.Close()
	if !errors.Is(err, fault.ErrUnavailable) {
		return nil, fmt.Errorf("OVS port %s: %w", r.port(), err)
	}
	if held, err := r.dir().HasLease(rundir.LeasesOVS, r.port()); err != nil || !held {
		return nil, err // never attached in this boot
	}
	return nil, r.dir().AddPendingRemoval(r.port())
}

// delLink deletes the host's end of the veth pair.
func (r Request) delLink(ctx context.Context) error {
	held, err := r.dir().HasLease(rundir.LeasesOVS, r.port())
	return errors.Join(err, delLink(ctx, r.Config.Name, r.port(), held))
}

// release releases the lease, and removes the host state if no lease is left. It does so
// without a lease, too: a DEL that was killed may have released it.
func release(ctx context.Context, r Request, conn *ovs.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, r.bound(restBound))
	defer cancel()
	if !r.dir().Exists() {
		return nil
	}
	if err := r.dir().Release(rundir.LeasesOVS, r.port()); err != nil {
		return err
	}
	if unused, err := r.dir().Unused(rundir.LeasesOVS); err != nil || !unused {
		return err
	}
	_, err := network.Remove(ctx, r.Config, conn, false)
	if errors.Is(err, fault.ErrUnavailable) || errors.Is(err, fault.ErrBusy) {
		return nil // the container is gone; the next call removes the host state
	}
	return err
}
