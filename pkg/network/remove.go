package network

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// Remove removes the host state if there are no containers and the network is not
// persistent; with force in any case. It uses the saved configuration, since c may have
// lost its keys. Where conn is nil, because OVSDB is down, it removes nothing: a partly
// removed host state could be taken for a complete one.
func Remove(ctx context.Context, c *config.Network, conn *ovs.Conn, force bool) ([]state.Change, error) {
	if conn == nil {
		return nil, nil
	}
	dir := rundir.NetworkDir(c.Name)
	unlock, err := dir.Lock(ctx, false)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if unused, err := dir.Unused(rundir.LeasesOVS); err != nil || (!unused && !force) {
		return nil, err
	}
	// A container whose lease is lost still needs the host state.
	if live, err := LiveAttachments(ctx, c.Name); err != nil || (len(live) > 0 && !force) {
		return nil, err
	}
	list := []state.Backend{ovs.NewBackend(conn, c.Name), firewall.NewBackend(c.Name)}
	if raw := dir.SavedConfig(); raw != nil {
		// The host state was made of the saved configuration. Without one nothing was
		// made, and objects on the links are not ours.
		if was, _ := config.Parse(raw); was.Name == c.Name {
			c = was
		}
		list = backends(c, conn, nil, false)
	}
	if err := removePorts(ctx, c.Name, conn); err != nil {
		return nil, err
	}
	if err := removeExtras(ctx, c, dir); err != nil {
		return nil, err
	}
	changes, err := state.Prune(ctx, state.Set{}, list...)
	if err == nil {
		err = removeTaps(ctx, c.OVSDB, changes)
	}
	if unused, _ := dir.Unused(rundir.LeasesOVS, rundir.LeasesRoutes); err == nil && (unused || force) {
		err = dir.Remove()
	} else if err == nil {
		err = dir.RemoveConfig()
	}
	return changes, err
}

// removeTaps deletes the taps of bridges of the userspace datapath if ovs-vswitchd does
// not run: taps are persistent, and a new ovs-vswitchd does not delete them.
func removeTaps(ctx context.Context, ovsdb string, changes []state.Change) error {
	var errs []error
	for _, ch := range changes {
		b, ok := ch.Old.(state.Bridge)
		if !ok || ovs.VswitchdAlive(ovsdb) == nil {
			continue
		}
		switch l, err := kernel.LinkByName(ctx, b.Name); {
		case err == nil && l.Kind == "tun":
			errs = append(errs, kernel.DelLink(ctx, b.Name))
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removePorts removes the ports of containers: on an adopted bridge, they would stay.
func removePorts(ctx context.Context, network string, conn *ovs.Conn) error {
	ports, err := conn.ContainerPorts(ctx, network)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range ports {
		names = append(names, p.Name)
	}
	_, err = conn.DelPorts(ctx, network, names...)
	return err
}

// removeExtras removes what belongs to no backend. It runs first, because it is quick and
// waiting for OVS may use up the time.
func removeExtras(ctx context.Context, c *config.Network, dir rundir.Dir) error {
	return errors.Join(unkeepAdvertised(dir), removeNeighbours(ctx, c, dir), firewall.DelAllSpoofChecks(ctx, c.Name))
}

// removeNeighbours removes the neighbour entries of a network's containers from a gateway
// link that stays, such as a Linux bridge.
func removeNeighbours(ctx context.Context, c *config.Network, dir rundir.Dir) error {
	if c.LinuxBridge == "" && !c.AdoptBridge {
		return nil // the entries go with their bridge
	}
	nodes, self, err := dir.SavedNodes()
	if err != nil {
		return nil // nothing was made
	}
	i := slices.IndexFunc(nodes, func(n config.Node) bool { return n.Name == self })
	if i < 0 {
		return nil
	}
	return kernel.RemoveNeighbours(ctx, state.GatewayLink(c), func(n state.Neigh) bool {
		return slices.ContainsFunc(nodes[i].Subnets, func(s netip.Prefix) bool { return s.Contains(n.IP) })
	})
}
