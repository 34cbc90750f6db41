package ovs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"ovs-gre-cni/pkg/openflow"
	"ovs-gre-cni/pkg/state"
)

// withFlows calls f with a connection to a bridge's management socket. The error
// wraps fs.ErrNotExist where there is no such bridge, else ErrUnavailable or
// ErrRefused.
func withFlows(ctx context.Context, socket, bridge string, f func(*openflow.Conn) error) error {
	path := filepath.Join(filepath.Dir(socket), bridge+".mgmt")
	conn, err := dial(ctx, path)
	if err != nil {
		return fmt.Errorf("%w: bridge %s: its OpenFlow socket: %w", ErrUnavailable, bridge, err)
	}
	c, err := openflow.Open(ctx, conn)
	if err == nil {
		defer c.Close()
		err = f(c)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, openflow.ErrRefused):
		return fmt.Errorf("%w: bridge %s: %w", ErrRefused, bridge, err)
	}
	return fmt.Errorf("%w: bridge %s: OpenFlow: %w", ErrUnavailable, bridge, err)
}

// count compares the wanted tables by two sums, of all their flows and of those with
// the wanted cookie. A table counts as wanted where ovs-vswitchd does not answer;
// VswitchdServes returns that error.
func (b *Backend) count(ctx context.Context, want state.Set) <-chan []state.Object {
	b.flows = nil
	for _, o := range want {
		if f, ok := o.(state.Flows); ok {
			b.flows = append(b.flows, f)
		}
	}
	counted := make(chan []state.Object, 1)
	if len(b.flows) == 0 {
		counted <- nil
		return counted
	}
	tables, brief := b.flows, b.brief
	go func() {
		var have []state.Object
		for _, f := range tables {
			switch wrong, err := countFlows(ctx, b.conn.path, f, brief); {
			case errors.Is(err, fs.ErrNotExist):
			case errors.Is(err, ErrRefused):
				f.Wrong = err.Error()
				have = append(have, f)
			default:
				f.Wrong = wrong
				have = append(have, f)
			}
		}
		counted <- have
	}()
	return counted
}

// countFlows says how a table differs from want; "" is not at all. brief is
// Backend.Brief's.
func countFlows(ctx context.Context, socket string, want state.Flows, brief bool) (wrong string, err error) {
	ctx, stop := unlessSilent(ctx, socket)
	defer stop()
	err = withFlows(ctx, socket, want.Bridge, func(c *openflow.Conn) error {
		all, err := c.Flows(ctx)
		if err != nil {
			return err
		}
		should := want.Count()
		if brief && all == should {
			// Of a cookie with all its bits OVS goes through all flows that have it.
			one, err := c.Count(ctx, state.Strangers(), want.Cookie(), 1<<64-2)
			if err == nil && one.Flows == 1 {
				return nil
			}
		}
		ours, err := c.Count(ctx, openflow.Match{}, want.Cookie(), 1<<64-1)
		if err != nil || ours.Flows == should && all == should {
			return err
		}
		wrong = fmt.Sprintf("%d of its %d flows are there", ours.Flows, should)
		if others := all - ours.Flows; others > 0 {
			wrong += fmt.Sprintf(", and %d others", others)
		}
		return nil
	})
	return wrong, err
}

// direct replaces the tables that differ, and those of bridges that changes make or
// change, since these may have lost their flows.
func (b *Backend) direct(ctx context.Context, changes []state.Change) error {
	todo := map[string]bool{}
	for _, c := range changes {
		if k := c.Kind(); c.New != nil && (k == state.KindBridge || k == state.KindFlows) {
			todo[c.New.ID().Name] = true
		}
	}
	var errs []error
	for _, f := range b.flows {
		if todo[f.Bridge] {
			errs = append(errs, b.replace(ctx, f))
		}
	}
	return errors.Join(errs...)
}

func (b *Backend) replace(ctx context.Context, f state.Flows) error {
	ctx, stop := unlessSilent(ctx, b.conn.path)
	defer stop()
	return withFlows(ctx, b.conn.path, f.Bridge, func(c *openflow.Conn) error { return c.Replace(ctx, f.Cookie(), f.Table()) })
}

// Strangers returns how many packets came to a bridge with state.Flows from hosts
// that are no peers, since its table was made. The error wraps ErrUnavailable or
// ErrRefused, and fs.ErrNotExist where there is no such bridge.
func Strangers(ctx context.Context, socket, bridge string) (packets uint64, err error) {
	err = withFlows(ctx, socket, bridge, func(c *openflow.Conn) error {
		sum, err := c.Count(ctx, state.Strangers(), 0, 0)
		packets = sum.Packets
		return err
	})
	return packets, err
}
