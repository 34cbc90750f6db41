package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// A Wire leads frames of one link of this host to another.
type Wire struct {
	From, To string
	// Lower: To carries the frames of From, and others, as the link under a VLAN.
	Lower bool
}

// segmentLess are masters that join their ports by routing, or by rules that
// only their maker knows (OVS's datapath, which OVSDB tells about).
var segmentLess = []string{"vrf", "openvswitch"}

// Wires lists what joins the links of this host into Ethernet segments: ports
// to their bridge or bond and back, the ends of veth pairs, links on others.
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

// Egress lists the links by which this host sends from one of its addresses to
// another's; none where there is no route.
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
