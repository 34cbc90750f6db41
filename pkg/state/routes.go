package state

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// ErrUnreachable is wrapped by errors about a subnet that no route can lead to on
// this host as it is.
var ErrUnreachable = errors.New("no way to the peer")

// NextHops are the ways out of this host that its routes can take.
type NextHops struct {
	// Transit is the transit link; "" where there is none.
	Transit string
	// Segment is the link that all peers' containers are on: it holds one segment
	// over all hosts, or is WireGuard's; "" where there is none.
	Segment string
	// Connected are the subnets of the underlay's links.
	Connected []netip.Prefix
	// Sources are this host's own addresses in its container subnets, the
	// gateways first.
	Sources []netip.Addr
	// Underlay is the link by which direct routes leave this host, Gateway4 and
	// Gateway6 are those of the gateway addresses; "" is none that can be told.
	Underlay, Gateway4, Gateway6 string
}

// DesiredRoutes returns the routes to the peers' subnets, the neighbour entries
// they need, and the accepts of what comes without a tunnel. The error wraps
// ErrNoWay.
func DesiredRoutes(c *config.Routes, m nodes.Topology, w NextHops) (Set, error) {
	s := Set{}
	var errs []error
	var nexthops []config.Node
	for _, p := range m.Peers {
		for _, dst := range p.Subnets {
			objs, err := route(c, m, p, dst, w)
			s.Put(objs...)
			nextHop := len(objs) == 1 && objs[0].(Route).Dev == ""
			if n := len(nexthops); nextHop && (n == 0 || nexthops[n-1].Name != p.Name) {
				nexthops = append(nexthops, p)
			}
			if err != nil {
				errs = append(errs, err)
			}
		}
	}
	// What keeps one route from being made often keeps all of them.
	if more := len(errs) - 8; more > 0 {
		errs = append(errs[:8], fmt.Errorf("%w: and %d more subnets", ErrUnreachable, more))
	}
	s.Put(direct(c, m, nexthops, w)...)
	return s, errors.Join(errs...)
}

func route(c *config.Routes, m nodes.Topology, p config.Node, dst netip.Prefix, w NextHops) ([]Object, error) {
	r := Route{Dst: dst, Table: c.Table, Metric: c.Metric}
	i := slices.IndexFunc(w.Sources, func(a netip.Addr) bool { return a.Is4() == dst.Addr().Is4() })
	if i >= 0 {
		r.Src = w.Sources[i]
	} else if slices.ContainsFunc(m.Self.Subnets, func(s netip.Prefix) bool { return s.Addr().Is4() == dst.Addr().Is4() }) {
		return nil, fmt.Errorf("%w: %s of %s: this host has no address in its own container subnets yet: the gateway address is missing", ErrUnreachable, dst, p)
	} else {
		// This host has no containers of that family, so nothing to talk to it.
		return nil, nil
	}
	direct := p.Address.Is6() || dst.Addr().Is4()
	if c.Mode == config.ModeAuto {
		direct = direct && slices.ContainsFunc(w.Connected, func(s netip.Prefix) bool { return s.Contains(p.Address) })
	}
	switch {
	case c.Mode != config.ModeTunnel && direct:
		r.Via = p.Address
		return []Object{r}, nil
	case c.Mode == config.ModeDirect:
		return nil, fmt.Errorf("%w: %w: mode direct cannot route %s by way of %s: IPv6 needs an IPv6 next hop", config.ErrInvalid, ErrUnreachable, dst, p)
	case w.Transit != "":
		return overTransit(r, p, w.Transit), nil
	case w.Segment != "":
		r.Dev = w.Segment
		return []Object{r}, nil
	}
	return nil, fmt.Errorf("%w: %s of %s: no tunnels on this host: there is neither a transit link nor a segment over all hosts",
		ErrUnreachable, dst, p)
}

// overTransit routes by the peer's transit link. Its MAC address is known, so
// nobody needs to ask. A global IPv6 next hop that no address is near to is
// refused by the kernel ("invalid gateway"), a link-local one is not.
func overTransit(r Route, p config.Node, dev string) []Object {
	mac := config.MAC(p.Address)
	r.Dev = dev
	if r.Dst.Addr().Is4() && p.Address.Is4() {
		r.Via, r.Onlink = p.Address, true
	} else {
		r.Via = config.LinkLocal(mac)
	}
	return []Object{r, Neigh{Dev: dev, IP: r.Via, MAC: mac}}
}
