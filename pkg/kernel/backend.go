package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/state"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Scope says which objects in the kernel belong to a network, so that those no
// longer wanted are removed. Nothing belongs to the zero Scope.
type Scope struct {
	// AddrLinks are the links on which addresses that carry our protocol
	// (IFA_PROTO = state.RouteProtocol) are the network's.
	AddrLinks []string
	// SharedLinks are links that others use, too: of the addresses there that carry
	// our protocol, only the Gateways are the network's.
	SharedLinks []string
	Gateways    []netip.Addr
	// NeighLinks are the links on which permanent neighbour entries are the
	// network's.
	NeighLinks []string
	// ProbeLinks are the links on which entries without a MAC address, for which
	// the kernel asks, are the network's.
	ProbeLinks []string
	// WireGuard is the network's encrypted link.
	WireGuard WireGuardScope
	// RouteTable is the table that holds the network's routes; 0 is none.
	RouteTable int
	// RouteSources are source addresses: routes of our protocol in RouteTable that
	// prefer one of them are the network's.
	RouteSources []netip.Addr
}

// Backend is the kernel's part of a host: sysctls, links, addresses,
// neighbours and routes. It implements state.Backend.
type Backend struct{ scope Scope }

var _ state.Backend = (*Backend)(nil)

// NewBackend returns the backend of the network with the scope s.
func NewBackend(s Scope) *Backend { return &Backend{s} }

// Observe implements state.Backend. It lists objects that are wanted or in scope.
// A link of another kind that has the name of a wanted OVS bridge is foreign.
func (b *Backend) Observe(ctx context.Context, want state.Set) (state.Set, error) {
	have := state.Set{}
	if err := observeSysctls(want, have); err != nil {
		return nil, err
	}
	return withConn(func(c *conn) (state.Set, error) {
		return have, errors.Join(
			observeLinks(ctx, c, want, have),
			b.observeWireGuard(ctx, c, want, have),
			b.observeAddrs(ctx, c, want, have),
			b.observeNeighs(ctx, c, want, have),
			b.observeRoutes(ctx, c, want, have),
		)
	})
}

// Apply implements state.Backend. An error about a route that is not ours wraps
// fault.ErrForeign. Where WireGuard's link could not be made, errors about what does not
// exist are left out: they follow from that.
func (b *Backend) Apply(ctx context.Context, changes []state.Change) error {
	return doWithConn(func(c *conn) error {
		var errs []error
		unmade := false          // WireGuard's link
		var taken []state.Change // routes whose place another has taken since Observe
		for _, ch := range portsFirst(changes) {
			if f, ok := ch.Old.(state.Foreign); ok {
				errs = append(errs, refuse(ch, f))
				continue
			}
			err := c.apply(ctx, ch)
			if _, ok := ch.New.(state.Route); ok && errors.Is(err, unix.EEXIST) {
				taken = append(taken, ch)
				continue
			}
			if unmade && errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if _, ok := ch.New.(state.WireGuard); ok {
				unmade = err != nil
			}
			errs = append(errs, about(ch, err))
		}
		if len(taken) > 0 {
			errs = append(errs, b.settle(ctx, c, taken)...)
		}
		return errors.Join(errs...)
	})
}

// portsFirst moves the links whose MTU has a limit behind the other links: the MTU
// of a Linux bridge follows its ports' unless it was set, so that the ports come
// first.
func portsFirst(changes []state.Change) []state.Change {
	var list, limited []state.Change
	for _, ch := range changes {
		if l, ok := ch.New.(state.Link); ok && l.MaxMTU != 0 {
			limited = append(limited, ch)
			continue
		}
		if ch.Kind() > state.KindLink {
			list, limited = append(list, limited...), nil
		}
		list = append(list, ch)
	}
	return append(list, limited...)
}

func (c *conn) apply(ctx context.Context, ch state.Change) error {
	switch o := ch.New.(type) {
	case state.Sysctl:
		err := writeSysctl(o.Key, o.Value)
		if errors.Is(err, fs.ErrNotExist) && metWithoutIPv6(o) {
			return nil
		}
		return err
	case state.WireGuard:
		return c.applyWireGuard(ctx, o, ch.Old)
	case state.WireGuardPeer:
		return c.applyWireGuardPeer(ctx, o, false)
	case state.Link:
		return c.setLink(ctx, o)
	case state.Addr:
		index, err := c.index(ctx, o.Dev)
		if err != nil {
			return err
		}
		return c.addAddr(ctx, index, o.Prefix, state.RouteProtocol)
	case state.Neigh:
		return c.doNeigh(ctx, o, (*netlink.Handle).NeighSet)
	case state.Route:
		return c.putRoute(ctx, o, ch.Old != nil)
	}
	if ch.New != nil {
		return nil
	}
	switch o := ch.Old.(type) {
	case state.WireGuard:
		return unlessGone(c.delWireGuard(ctx, o))
	case state.WireGuardPeer:
		return unlessGone(c.applyWireGuardPeer(ctx, o, true))
	case state.Addr:
		return unlessGone(c.delAddr(ctx, o))
	case state.Neigh:
		return unlessGone(c.doNeigh(ctx, o, (*netlink.Handle).NeighDel))
	case state.Route:
		return unlessGone(c.delRoute(ctx, o))
	}
	return nil
}

// settle applies changes of routes that EEXIST was the answer to: the route that is
// there may be the wanted one, another of ours, or foreign.
func (b *Backend) settle(ctx context.Context, c *conn, taken []state.Change) (errs []error) {
	want, have := state.Set{}, state.Set{}
	for _, ch := range taken {
		want.Put(ch.New)
	}
	if err := b.observeRoutes(ctx, c, want, have); err != nil {
		return []error{err}
	}
	for _, ch := range taken {
		r := ch.New.(state.Route)
		old := have[r.ID()]
		if old == ch.New {
			continue
		}
		if f, ok := old.(state.Foreign); ok {
			errs = append(errs, refuse(ch, f))
			continue
		}
		errs = append(errs, about(ch, c.putRoute(ctx, r, old != nil)))
	}
	return errs
}

func refuse(ch state.Change, f state.Foreign) error {
	if ch.New == nil || !mine(ch.Kind()) {
		return nil
	}
	return fmt.Errorf("%s is in the way: %w: there is %s", ch.New.Noun(), fault.ErrForeign, f.Have)
}

func mine(k state.Kind) bool { return k >= state.KindWireGuard && k <= state.KindRoute }

// about puts the object of a change in front of its error.
func about(ch state.Change, err error) error {
	if err == nil {
		return nil
	}
	o := ch.New
	if o == nil {
		o = ch.Old
	}
	var gone noLink
	if o.ID().Kind == state.KindLink && errors.As(err, &gone) && string(gone) == o.ID().Name {
		return err // names it already
	}
	return fmt.Errorf("%s: %w", o.Noun(), err)
}
