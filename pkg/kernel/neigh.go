package kernel

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"

	"ovs-gre-cni/pkg/state"

	"github.com/vishvananda/netlink"
)

// CanProbe reports whether the kernel can be told to ask for a neighbour again
// and again (5.16), and how often (6.0).
func CanProbe() bool {
	_, err := os.Stat(sysctlPath("net/ipv4/neigh/lo/interval_probe_time_ms"))
	return err == nil
}

// observeNeighs adds the wanted entries and the network's. An entry that the
// kernel learned counts for nothing: it may be forgotten again.
func (b *Backend) observeNeighs(ctx context.Context, c *conn, want, have state.Set) error {
	devs := slices.Concat(b.scope.NeighLinks, b.scope.ProbeLinks)
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
		owned := b.scope.NeighLinks
		if k.FlagsExt&netlink.NTF_EXT_MANAGED != 0 {
			n.MAC, owned = "", b.scope.ProbeLinks
		} else if k.State&netlink.NUD_PERMANENT == 0 {
			continue
		}
		if n.Dev == "" || !n.IP.IsValid() {
			continue
		}
		if _, wanted := want[n.ID()]; wanted || slices.Contains(owned, n.Dev) {
			have.Put(n)
		}
	}
	return nil
}

// doNeigh sets or deletes an entry.
func (c *conn) doNeigh(ctx context.Context, n state.Neigh, do func(*netlink.Handle, *netlink.Neigh) error) error {
	index, err := c.index(ctx, n.Dev)
	if err != nil {
		return err
	}
	k := &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: n.IP.AsSlice()}
	if n.MAC == "" {
		// Learned by others, so that it is not forgotten where there are many.
		k.State, k.Flags, k.FlagsExt = netlink.NUD_NONE, netlink.NTF_EXT_LEARNED, netlink.NTF_EXT_MANAGED
	} else if k.HardwareAddr, err = net.ParseMAC(n.MAC); err != nil {
		return err
	}
	return c.execute(ctx, func(h *netlink.Handle) error { return do(h, k) })
}
