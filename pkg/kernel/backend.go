package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"ovs-gre-cni/pkg/host"
	"ovs-gre-cni/pkg/state"

	"golang.org/x/sys/unix"
)

// Scope is what belongs to a network besides what is wanted. The zero Scope
// owns nothing.
type Scope struct {
	// AddrLinks are the links on which addresses that carry our protocol
	// (IFA_PROTO = state.RouteProtocol) are the network's.
	AddrLinks []string
	// SharedLinks are links that others use too: of the addresses there that
	// carry our protocol, the Gateways are the network's.
	SharedLinks []string
	Gateways    []netip.Addr
	// NeighLinks are the links on which permanent neighbour entries are the
	// network's.
	NeighLinks []string
	// RouteTable is the table that holds the network's routes; 0 is none.
	RouteTable int
	// RouteSources: routes of our protocol in RouteTable that prefer one of
	// these as source are the network's.
	RouteSources []netip.Addr
}

// Backend is the kernel's part of a host: sysctls, links, addresses,
// neighbours and routes. It implements host.Backend.
type Backend struct{ scope Scope }

var _ host.Backend = (*Backend)(nil)

// NewBackend returns the backend of a network that owns what s says.
func NewBackend(s Scope) *Backend { return &Backend{s} }

// Observe implements host.Backend. It lists nothing that neither want nor the
// scope has to do with. A link of another kind in the place of an OVS bridge is
// foreign.
func (b *Backend) Observe(ctx context.Context, want state.Set) (state.Set, error) {
	have := state.Set{}
	if err := observeSysctls(want, have); err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	c.remember()
	err = errors.Join(
		observeLinks(ctx, c, want, have),
		b.observeAddrs(ctx, c, want, have),
		b.observeNeighs(ctx, c, want, have),
		b.observeRoutes(ctx, c, want, have),
	)
	return have, err
}

// Apply implements host.Backend. All that is rtnetlink's goes to the kernel in
// as few sends as there are sysctls in between. An error about a route that is
// not ours wraps host.ErrForeign.
func (b *Backend) Apply(ctx context.Context, changes []state.Change) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	c.remember()
	a := application{backend: b, conn: c}
	for _, ch := range changes {
		a.add(ctx, ch)
	}
	a.flush(ctx)
	return errors.Join(a.errs...)
}

// application is one call of Apply.
type application struct {
	backend *Backend
	conn    *conn
	changes []state.Change // whose messages wait to be sent
	reqs    []message
	errs    []error
}

// add does a change, or puts it with those that wait.
func (a *application) add(ctx context.Context, ch state.Change) {
	if f, ok := ch.Old.(state.Foreign); ok {
		a.refuse(ch, f)
		return
	}
	if s, ok := ch.New.(state.Sysctl); ok {
		a.flush(ctx)
		a.fail(ch, writeSysctl(s.Key, s.Value))
		return
	}
	m, err := a.message(ctx, ch)
	a.fail(ch, err)
	if m != nil && err == nil {
		a.changes, a.reqs = append(a.changes, ch), append(a.reqs, m)
	}
}

// message is nil where there is nothing to do.
func (a *application) message(ctx context.Context, ch state.Change) (message, error) {
	switch o := ch.New.(type) {
	case state.Link:
		return setLink(ctx, a.conn, o)
	case state.Addr:
		return newAddr(a.conn, o)
	case state.Neigh:
		return newNeigh(a.conn, o)
	case state.Route:
		return newRoute(a.conn, o, ch.Old != nil)
	}
	if ch.New != nil {
		return nil, nil
	}
	switch o := ch.Old.(type) {
	case state.Addr:
		return delAddr(ctx, a.conn, o)
	case state.Neigh:
		return delNeigh(a.conn, o)
	case state.Route:
		return delRoute(a.conn, o)
	}
	return nil, nil
}

// flush sends what waits.
func (a *application) flush(ctx context.Context) {
	if len(a.reqs) == 0 {
		return
	}
	var taken []state.Change
	for i, ans := range a.conn.exchange(ctx, a.reqs...) {
		ch := a.changes[i]
		_, isRoute := ch.New.(state.Route)
		switch {
		case isRoute && errors.Is(ans.err, unix.EEXIST):
			taken = append(taken, ch)
		case ch.New == nil:
			a.fail(ch, unlessGone(ans.err))
		default:
			a.fail(ch, a.unlessSame(ctx, ch.New, ans.err))
		}
	}
	a.changes, a.reqs = nil, nil
	if len(taken) > 0 {
		a.settle(ctx, taken)
	}
}

// settle looks again at routes whose place was free a moment ago: what is
// there now is the same, or ours, or foreign.
func (a *application) settle(ctx context.Context, taken []state.Change) {
	want, have := state.Set{}, state.Set{}
	for _, ch := range taken {
		want.Put(ch.New)
	}
	if err := a.backend.observeRoutes(ctx, a.conn, want, have); err != nil {
		a.errs = append(a.errs, err)
		return
	}
	for _, ch := range taken {
		r := ch.New.(state.Route)
		old := have[r.ID()]
		if old == ch.New {
			continue
		}
		if f, ok := old.(state.Foreign); ok {
			a.refuse(ch, f)
			continue
		}
		m, err := newRoute(a.conn, r, old != nil)
		if err == nil {
			_, err = a.conn.one(ctx, m)
		}
		a.fail(ch, err)
	}
}

// unlessSame forgets the error about an address that is there already.
func (a *application) unlessSame(ctx context.Context, o state.Object, err error) error {
	addr, ok := o.(state.Addr)
	if !ok || !errors.Is(err, unix.EEXIST) {
		return err
	}
	index, err := a.conn.index(addr.Dev)
	if err != nil {
		return err
	}
	return a.conn.sameAddr(ctx, index, addr.Prefix)
}

// unlessGone forgets the errors about deleting what is not there.
func unlessGone(err error) error {
	for _, gone := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.ENXIO, unix.EADDRNOTAVAIL} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

func (a *application) refuse(ch state.Change, f state.Foreign) {
	if ch.New != nil && mine(ch.Kind()) {
		a.errs = append(a.errs, fmt.Errorf("%s is in the way: %w: want %s; have %s", ch.New.Noun(), host.ErrForeign, ch.New, f.Have))
	}
}

func mine(k state.Kind) bool { return k >= state.KindSysctl && k <= state.KindRoute }

func (a *application) fail(ch state.Change, err error) {
	if err == nil {
		return
	}
	o := ch.New
	if o == nil {
		o = ch.Old
	}
	var gone noLink
	if o.ID().Kind == state.KindLink && errors.As(err, &gone) && string(gone) == o.ID().Name {
		a.errs = append(a.errs, err) // names it already
		return
	}
	a.errs = append(a.errs, fmt.Errorf("%s: %w", o.Noun(), err))
}
