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

// openFlow connects to a bridge's management socket. The error wraps
// fs.ErrNotExist where there is no such bridge, else ErrUnavailable or ErrRefused.
func openFlow(ctx context.Context, socket, bridge string) (*openflow.Conn, error) {
	path := filepath.Join(filepath.Dir(socket), bridge+".mgmt")
	conn, err := dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("%w: bridge %s: its OpenFlow socket: %w", ErrUnavailable, bridge, err)
	}
	c, err := openflow.Open(ctx, conn)
	if err != nil {
		return nil, flowError(bridge, err)
	}
	return c, nil
}

// flowError adds the bridge to an error of OpenFlow. It wraps ErrRefused or
// ErrUnavailable.
func flowError(bridge string, err error) error {
	if errors.Is(err, openflow.ErrRefused) {
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
	c, err := openFlow(ctx, socket, want.Bridge)
	if err != nil {
		return "", err
	}
	defer c.Close()
	all, err := c.Flows(ctx)
	if err != nil {
		return "", flowError(want.Bridge, err)
	}
	should := want.Count()
	if brief && all == should {
		// Of a cookie with all its bits OVS goes through all flows that have it.
		one, err := c.Count(ctx, state.Strangers(), want.Cookie(), 1<<64-2)
		if err == nil && one.Flows == 1 {
			return "", nil
		}
	}
	ours, err := c.Count(ctx, openflow.Match{}, want.Cookie(), 1<<64-1)
	if err != nil {
		return "", flowError(want.Bridge, err)
	}
	if ours.Flows == should && all == should {
		return "", nil
	}
	wrong = fmt.Sprintf("%d of its %d flows are there", ours.Flows, should)
	if others := all - ours.Flows; others > 0 {
		wrong += fmt.Sprintf(", and %d others", others)
	}
	return wrong, nil
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
	c, err := openFlow(ctx, b.conn.path, f.Bridge)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Replace(ctx, f.Cookie(), f.Table()); err != nil {
		return flowError(f.Bridge, err)
	}
	return nil
}

// Strangers returns how many packets came to a bridge with state.Flows from hosts
// that are no peers, since its table was made. The error wraps ErrUnavailable or
// ErrRefused, and fs.ErrNotExist where there is no such bridge.
func Strangers(ctx context.Context, socket, bridge string) (uint64, error) {
	c, err := openFlow(ctx, socket, bridge)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	sum, err := c.Count(ctx, state.Strangers(), 0, 0)
	if err != nil {
		return 0, flowError(bridge, err)
	}
	return sum.Packets, nil
}
