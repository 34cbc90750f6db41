package kernel

import (
	"context"
	"fmt"
	"net"
	"slices"

	"ovs-gre-cni/pkg/state"

	"github.com/vishvananda/netlink"
)

// observeNeighs adds the wanted entries and the network's. An entry that the
// kernel learned counts for nothing: it may be forgotten again.
func (b *Backend) observeNeighs(ctx context.Context, c *conn, want, have state.Set) error {
	devs := slices.Clone(b.scope.NeighLinks)
	for _, o := range want {
		if n, ok := o.(state.Neigh); ok {
			devs = append(devs, n.Dev)
		}
	}
	links, err := c.indexesOf(ctx, devs)
	if err != nil || len(links) == 0 {
		return err
	}
	list, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Neigh, error) { return h.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("neighbours: %w", err)
	}
	for _, k := range list {
		n := state.Neigh{Dev: links[k.LinkIndex], IP: addrOf(k.IP), MAC: k.HardwareAddr.String()}
		if n.Dev == "" || k.State&netlink.NUD_PERMANENT == 0 || !n.IP.IsValid() {
			continue
		}
		if _, wanted := want[n.ID()]; wanted || slices.Contains(b.scope.NeighLinks, n.Dev) {
			have.Put(n)
		}
	}
	return nil
}

// doNeigh sets or deletes an entry.
func (c *conn) doNeigh(ctx context.Context, n state.Neigh, do func(*netlink.Handle, *netlink.Neigh) error) error {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	index, err := c.index(ctx, n.Dev)
	if err != nil {
		return err
	}
	k := &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: n.IP.AsSlice(), HardwareAddr: mac}
	return c.execute(ctx, func(h *netlink.Handle) error { return do(h, k) })
}
