package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// A Wire says that a link of this host hands Ethernet frames on to another one.
type Wire struct {
	From, To string
	// Lower: To is the lower link of From, such as the one under a VLAN, and carries
	// frames of others, too.
	Lower bool
}

// segmentLess are the kinds of masters whose ports are not one Ethernet segment: a
// VRF routes between them, and which ports OVS joins is in OVSDB.
var segmentLess = []string{"vrf", "openvswitch"}

// Wires lists how the links of this host are joined to Ethernet segments: ports
// with their bridge or bond in both directions, the two ends of veth pairs, VLAN,
// macvlan and similar links with their lower links.
func Wires(ctx context.Context) ([]Wire, error) {
	links, err := withConn(func(c *conn) ([]netlink.Link, error) { return query(ctx, c, (*netlink.Handle).LinkList) })
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	by := map[int]netlink.Link{}
	for _, l := range links {
		by[l.Attrs().Index] = l
	}
	var wires []Wire
	for _, l := range links {
		at := l.Attrs()
		if m := by[at.MasterIndex]; m != nil && !slices.Contains(segmentLess, m.Type()) {
			wires = append(wires, Wire{From: at.Name, To: m.Attrs().Name}, Wire{From: m.Attrs().Name, To: at.Name})
		}
		under := by[at.ParentIndex]
		if under == nil || under == l || at.NetNsID >= 0 {
			continue // none, or in another namespace
		}
		switch l.Type() {
		case "veth":
			wires = append(wires, Wire{From: at.Name, To: under.Attrs().Name})
		case "macvlan", "macvtap":
			wires = append(wires, Wire{From: at.Name, To: under.Attrs().Name}, Wire{From: under.Attrs().Name, To: at.Name})
		case "vlan", "ipvlan", "macsec":
			wires = append(wires, Wire{From: at.Name, To: under.Attrs().Name, Lower: true})
		}
	}
	return wires, nil
}

// Egress lists the links by which this host sends packets from its address from to
// the address to: several of a multipath route, none where there is no route.
func Egress(ctx context.Context, from, to netip.Addr) ([]string, error) {
	return withConn(func(c *conn) (names []string, err error) {
		r, err := c.routeTo(ctx, to, c.source(ctx, from))
		if err != nil {
			return nil, ctx.Err()
		}
		for _, h := range hops(r) {
			names = append(names, c.name(h.LinkIndex))
		}
		return names, nil
	})
}
