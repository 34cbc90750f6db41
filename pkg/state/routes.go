package state

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// ErrUnreachable is wrapped by errors about a peer's subnet to which this host, in its
// present state, cannot have a route.
var ErrUnreachable = errors.New("no way to the peer")

// NextHops holds what this host has to route by: links, addresses, connected subnets.
type NextHops struct {
	// Transit is the transit link; "" means that there is none.
	Transit string
	// OneTunnel: OVS finds the peer by the packet; see Flows.
	OneTunnel bool
	// Segment is the link that all peers' containers are on: it holds one segment
	// over all hosts, or is WireGuard's; "" where there is none.
	Segment string
	// Connected are the subnets of the addresses of the underlay's links.
	Connected []netip.Prefix
	// Sources are this host's own addresses in its container subnets, the
	// gateways first.
	Sources []netip.Addr
	// Underlay is the link by which direct routes leave this host; Gateway4 and
	// Gateway6 are the links of the gateway addresses. "" means unknown.
	Underlay, Gateway4, Gateway6 string
}

// DesiredRoutes returns the routes to the peers' subnets, the neighbour entries
// they need, and the accepts of packets that come without a tunnel. The error wraps
// ErrUnreachable; the set then has the routes that are possible.
func DesiredRoutes(c *config.Routes, m nodes.Topology, w NextHops) (Set, error) {
	if !m.Fan.IsZero() {
		return fanRoutes(c, m, w)
	}
	s := Set{}
	var errs []error
	var nexthops []config.Node
	shared := make([]netip.Prefix, 0, len(m.Peers)) // those that OVS finds the peer of
	for _, p := range m.Peers {
		for _, dst := range p.Subnets {
			if w.OneTunnel && c.Mode == config.ModeTunnel && source(dst, w).IsValid() {
				shared = append(shared, dst) // as route below, of thousands of peers
				continue
			}
			objs, err := route(c, m, p, dst, w)
			if len(objs) > 0 && w.OneTunnel && objs[0].(Route).Dev == w.Transit {
				shared = append(shared, dst)
				continue
			}
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
	// One cause often affects all routes.
	if more := len(errs) - 8; more > 0 {
		errs = append(errs[:8], fmt.Errorf("%w: and %d more subnets", ErrUnreachable, more))
	}
	s.Put(toAnyPeer(c, shared, w)...)
	s.Put(directForwards(c, m, nexthops, w)...)
	return s, errors.Join(errs...)
}

// Condensed is m with one peer that has the subnets of all, as few as hold the same
// addresses. DesiredRoutes makes the same of it where all routes are OneTunnel's.
func Condensed(m nodes.Topology) nodes.Topology {
	if len(m.Peers) == 0 {
		return m
	}
	subnets := mergedSubnets(m.Peers)
	m.Peers = []config.Node{{Name: "peers of " + m.Self.Name, Address: m.Peers[0].Address, Subnets: append(subnets[0], subnets[1]...)}}
	return m
}

// fanRoutes are the routes where no list has the peers: OVS finds each by the packet.
func fanRoutes(c *config.Routes, m nodes.Topology, w NextHops) (Set, error) {
	dst, s := m.PeerSubnets(), Set{}
	switch err := c.CheckFan(); {
	case err != nil:
		return s, err
	case !source(dst[0], w).IsValid():
		return s, fmt.Errorf("%w: %s: this host's gateway address is missing", ErrUnreachable, dst[0])
	case w.Transit == "":
		return s, fmt.Errorf("%w: %s: no tunnels on this host: there is no transit link", ErrUnreachable, dst[0])
	}
	s.Put(toAnyPeer(c, dst, w)...)
	return s, nil
}

func route(c *config.Routes, m nodes.Topology, p config.Node, dst netip.Prefix, w NextHops) ([]Object, error) {
	r := Route{Dst: dst, Table: c.Table, Metric: c.Metric}
	if r.Src = source(dst, w); r.Src.IsValid() {
		// the next hop is below
	} else if slices.ContainsFunc(m.Self.Subnets, func(s netip.Prefix) bool { return s.Addr().Is4() == dst.Addr().Is4() }) {
		return nil, fmt.Errorf("%w: %s of %s: this host's gateway address is missing",
			ErrUnreachable, dst, p)
	} else {
		// This host has no containers of that family, which would need a route.
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
		return nil, fmt.Errorf("%w: %w: mode direct cannot route %s by way of %s: IPv6 needs an IPv6 next hop",
			config.ErrInvalid, ErrUnreachable, dst, p)
	case w.Transit != "" && w.OneTunnel:
		r.Dev = w.Transit
		return []Object{r}, nil // toAnyPeer says by which next hop
	case w.Transit != "":
		return overTransit(r, p, w.Transit), nil
	case w.Segment != "":
		r.Dev = w.Segment
		return []Object{r}, nil
	}
	return nil, fmt.Errorf("%w: %s of %s: no tunnels on this host: there is neither a transit link nor a segment over all hosts",
		ErrUnreachable, dst, p)
}

// source is the first of this host's addresses that is of a destination's
// family; the zero Addr is none.
func source(dst netip.Prefix, w NextHops) netip.Addr {
	for _, a := range w.Sources {
		if a.Is4() == dst.Addr().Is4() {
			return a
		}
	}
	return netip.Addr{}
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

// toAnyPeer routes by the transit link, by the fewest routes that lead to the
// same addresses and no others. Their next hop is every peer's.
func toAnyPeer(c *config.Routes, subnets []netip.Prefix, w NextHops) []Object {
	var objs []Object
	for _, v6 := range []bool{false, true} {
		list := ofFamily(subnets, v6)
		if len(list) == 0 {
			continue
		}
		via := config.AnyPeer4
		if v6 {
			via = config.LinkLocal(config.AnyPeerMAC)
		}
		for _, dst := range merge(list) {
			objs = append(objs, Route{Dst: dst, Via: via, Dev: w.Transit, Onlink: !v6, Src: source(dst, w), Table: c.Table, Metric: c.Metric})
		}
		objs = append(objs, Neigh{Dev: w.Transit, IP: via, MAC: config.AnyPeerMAC})
	}
	return objs
}
