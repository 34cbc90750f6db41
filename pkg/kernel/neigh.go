package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
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

// observeNeighs adds the wanted entries and the network's. Entries that the kernel
// has learned do not count: it may forget them.
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
	list, err := c.neighs(ctx, 0)
	for _, k := range list {
		n := k.object(links[k.LinkIndex])
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
	return err
}

func (n neigh) object(dev string) state.Neigh {
	return state.Neigh{Dev: dev, IP: addrOf(n.IP), MAC: n.HardwareAddr.String()}
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

// AddNeighbours makes a permanent neighbour entry on dev for each address, and
// replaces entries for it. The entries carry the protocol state.RouteProtocol,
// which tells them from an administrator's: "ip -d neigh show nud permanent" shows
// it. The error wraps fs.ErrNotExist where there is no link dev.
func AddNeighbours(ctx context.Context, dev, mac string, addrs ...netip.Addr) error {
	hw, err := net.ParseMAC(mac)
	if err != nil || len(addrs) == 0 {
		return err
	}
	return doWithConn(func(c *conn) error {
		index, err := c.index(ctx, dev)
		if err != nil {
			return err
		}
		var errs []error
		for _, a := range addrs {
			errs = append(errs, wrap(fmt.Sprintf("neighbour %s on %s", a, dev), c.newNeigh(ctx, index, a, hw)))
		}
		return errors.Join(errs...)
	})
}

// RemoveNeighbours deletes the entries that Neighbours lists and for which pick
// returns true.
func RemoveNeighbours(ctx context.Context, dev string, pick func(state.Neigh) bool) error {
	return doWithConn(func(c *conn) error {
		list, err := c.neighbours(ctx, dev)
		errs := []error{err}
		for _, n := range list {
			if pick(n) {
				err := unlessGone(c.doNeigh(ctx, n, (*netlink.Handle).NeighDel))
				errs = append(errs, wrap(fmt.Sprintf("neighbour %s on %s: delete", n.IP, dev), err))
			}
		}
		return errors.Join(errs...)
	})
}

// Neighbours lists the permanent entries of dev that AddNeighbours made; none where
// there is no link dev.
func Neighbours(ctx context.Context, dev string) ([]state.Neigh, error) {
	return withConn(func(c *conn) ([]state.Neigh, error) { return c.neighbours(ctx, dev) })
}

func (c *conn) neighbours(ctx context.Context, dev string) (list []state.Neigh, err error) {
	index, err := c.index(ctx, dev)
	if err != nil {
		return nil, unlessGone(err)
	}
	all, err := c.neighs(ctx, index)
	for _, k := range all {
		if n := k.object(dev); k.State&netlink.NUD_PERMANENT != 0 && n.IP.IsValid() && k.ours() {
			list = append(list, n)
		}
	}
	return list, err
}

// keepingNeighs calls f, which sets a link's MAC address, and then makes all
// permanent neighbour entries of the link again: the kernel flushes them, also
// where the MAC address does not change (neigh_changeaddr).
func (c *conn) keepingNeighs(ctx context.Context, index int, f func() error) error {
	list, err := c.neighs(ctx, index)
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	var errs []error
	for _, n := range list {
		if n.State&netlink.NUD_PERMANENT != 0 {
			errs = append(errs, wrap("neighbour: make it anew", c.addNeigh(ctx, n)))
		}
	}
	return errors.Join(errs...)
}
