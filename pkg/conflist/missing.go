package conflist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/state"
)

// MissingRoutes returns, for a message, the peers whose containers have no route on
// this host because the chain has no route-sync; "" means that all have one, whoever
// made it. It changes nothing.
func (f File) MissingRoutes(ctx context.Context) (string, error) {
	if f.OVS == nil || f.Routes != nil || f.OVS.Tunnel.Type == config.TunnelNone {
		return "", nil // without tunnels, routes are not made here
	}
	if f.OVS.Segment == config.SegmentMesh && (f.OVS.IPAM.Type != "host-local" || f.OVS.IPAM.Ranged) {
		return "", nil // containers may reach each other on the segment
	}
	r, err := routes.Open(ctx, &config.Routes{Base: f.OVS.Base, Mode: config.ModeTunnel, Table: mainTable}, f.OVS.Bridge)
	if err != nil {
		return "", err
	}
	each := *f.OVS // somebody else's routes are one a peer, whatever the tunnels are
	each.Tunnel.Ports = config.PortsPeer
	r.UseNetwork(&each)
	want, err := r.Want()
	noLink := errors.Is(err, state.ErrUnreachable) // not even the link of the routes exists
	if err != nil && !noLink {
		return "", err
	}
	changes, err := state.Check(ctx, want, r.Backends()...)
	if err != nil {
		return "", err
	}
	var names []string
	for _, p := range r.Topology.Holders() {
		missing := func(c state.Change) bool {
			route, ok := c.New.(state.Route)
			return ok && c.Old == nil && slices.Contains(p.Subnets, route.Dst)
		}
		if noLink || slices.ContainsFunc(changes, missing) {
			names = append(names, p.String())
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	if more := len(names) - 3; more > 1 {
		names = append(names[:3], fmt.Sprintf("%d more", more))
	}
	const missing = `the chain lacks {"type": "route-sync"} behind ovs-gre`
	return fmt.Sprintf("nothing leads to the containers of %s: %s", strings.Join(names, ", "), missing), nil
}

// mainTable is RT_TABLE_MAIN of linux/rtnetlink.h.
const mainTable = 254
