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

// A DEL ends within the first two together, whatever has died; on a machine for
// which timeoutSeconds says 40 or more, later in proportion.
const (
	ovsBound  = time.Second
	restBound = 2 * time.Second
	// undoBound is ADD's, for taking back what it has done.
	undoBound = 5 * time.Second
)

// bound is one of the bounds, on this machine.
func (r Request) bound(d time.Duration) time.Duration {
	return max(d, d*(r.Config.Timeout/(20*time.Second)))
}

// Del takes a container off its network. It needs neither the container's
// namespace, nor the result of ADD, nor, but for the OVS port, OVSDB: what it
// could not take out of there, the next call will. What is already gone is no
// error. Every step runs, whatever became of the others. What the configuration
// has lost since ADD it has from the one that host state was made of. The error
// wraps config.ErrInvalid where the name is none that ADD would take.
func Del(ctx context.Context, r Request) error {
	if err := config.CheckName(r.Config.Name); err != nil {
		return err
	}
	r.Config = r.Config.Completed(r.dir().SavedConfig())
	if over, err := r.delConfined(); over {
		return err
	}
	// Each step has its own bound: one that waits in vain leaves the others theirs.
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
		return err // the lease stays, and with it the claim to try again
	}
	return release(ctx, r, conn)
}

// delConfined ends a DEL by a process that cannot have attached anything: all
// is well, unless there is a lease that says who did.
func (r Request) delConfined() (over bool, err error) {
	confined := kernel.Confined()
	held, err := r.dir().HasLease(rundir.LeasesOVS, r.port())
	switch {
	case confined != nil && held:
		return true, confined
	case confined != nil:
		return true, nil
	default: // a directory of root's, seen from a user namespace
		return err != nil && kernel.InUserNamespace(), nil
	}
}

// delPort takes the port out of OVSDB and returns the connection, or buries
// the port and returns nil where OVSDB does not answer.
func delPort(ctx context.Context, r Request) (*ovs.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.bound(ovsBound))
	defer cancel()
	conn, err := ovs.Dial(ctx, r.Config.OVSDB)
	if err == nil {
		_, err = conn.DelPorts(ctx, r.Config.Name, r.port())
	}
	if err == nil {
		r.dir().ClearPendingRemovals(r.port()) // an ADD that failed may have buried it
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

// delLink deletes the host's end of the veth pair, unless it is a stranger's.
func (r Request) delLink(ctx context.Context) error {
	held, err := r.dir().HasLease(rundir.LeasesOVS, r.port())
	return errors.Join(err, delLink(ctx, r.Config.Name, r.port(), held))
}

// release gives the lease back, and the host state with the last one. Without
// a lease it looks all the same: a DEL that was killed may have got that far.
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
		return nil // the container is gone; its host state goes with the next call
	}
	return err
}
