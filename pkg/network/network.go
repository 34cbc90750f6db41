// Package network is one network on this host: what of bridges, tunnels,
// addresses and filter it should have, and how to get and lose it.
// Containers are package attach's business, routes package routes'.
package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/filter"
	"ovs-gre-cni/pkg/host"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/mesh"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/spec"
	"ovs-gre-cni/pkg/state"
)

// A Network is one network on this host, for one call.
type Network struct {
	Config *spec.Network
	Mesh   mesh.Mesh
	Dir    host.Dir
	// OVS is an open connection.
	OVS *ovs.Conn
	// Unreachable are the peers that this host has no route to; Want finds
	// them. Their tunnels carry nothing, and nothing else suffers.
	Unreachable []spec.Node
}

// Resolve loads the configuration's nodes and finds this host among them. The
// error wraps mesh.ErrNotReady or spec.ErrInvalid, and in a user namespace
// kernel.ErrConfined.
func Resolve(ctx context.Context, b *spec.Base) (mesh.Mesh, error) {
	nodes, err := mesh.Nodes(b)
	if err != nil {
		return mesh.Mesh{}, err
	}
	local, err := kernel.LocalAddrs(ctx)
	if err != nil {
		return mesh.Mesh{}, err
	}
	m, err := mesh.Resolve(nodes, b.Node, local)
	return m, kernel.Rootless(err)
}

// Open finds this host in the network and connects to OVSDB. The caller closes
// Network.OVS.
func Open(ctx context.Context, c *spec.Network) (*Network, error) {
	m, err := Resolve(ctx, &c.Base)
	if err != nil {
		return nil, err
	}
	conn, err := ovs.Dial(ctx, c.OVSDB)
	if err != nil {
		return nil, kernel.Rootless(err)
	}
	return &Network{Config: c, Mesh: m, Dir: host.NetworkDir(c.Name), OVS: conn}, nil
}

// Want returns the desired host state and the MTU inside containers.
func (n *Network) Want(ctx context.Context) (state.Set, int, error) {
	var peers []netip.Addr
	for _, p := range n.Mesh.Peers {
		peers = append(peers, p.Address)
	}
	underlay, unreachable, err := kernel.UnderlayMTU(ctx, n.Mesh.Self.Address, peers)
	if err != nil {
		return nil, 0, err
	}
	n.Unreachable = nil
	for _, a := range unreachable {
		n.Unreachable = append(n.Unreachable, n.Mesh.Peers[slices.Index(peers, a)])
	}
	mtu, err := state.MTU(n.Config, n.Mesh, underlay)
	if err != nil {
		return nil, 0, err
	}
	c := *n.Config
	if n.OVS != nil && c.AdoptBridge && c.DatapathType == "" {
		// The tunnels' bridge has the datapath of the containers'.
		if c.DatapathType, _, err = n.OVS.DatapathType(ctx, c.Bridge); err != nil {
			return nil, 0, err
		}
	}
	want := state.Desired(&c, n.Mesh, mtu)
	if kernel.CanProbe() {
		want.Put(state.Probes(&c, n.Mesh)...)
	}
	return want, mtu, nil
}

// Unrouted says to which peers this host has no route; "" is to each it has one.
// It is about what Want has found.
func (n *Network) Unrouted() string {
	const most = 5
	var names []string
	for _, p := range n.Unreachable {
		names = append(names, p.String())
	}
	switch more := len(names) - most; {
	case len(names) == 0:
		return ""
	case more > 1:
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return "this host has no route to " + strings.Join(names, ", ")
}

// Backends are where the network's host state lives.
func (n *Network) Backends() []host.Backend {
	return backends(n.Config, n.OVS, n.Mesh.Self.Gateways())
}

// savedGateways are the gateway addresses that host state was made of.
func savedGateways(dir host.Dir) []netip.Addr {
	nodes, self, err := dir.Handed()
	if err != nil {
		return nil
	}
	for _, node := range nodes {
		if node.Name == self {
			return node.Gateways()
		}
	}
	return nil
}

// backends returns the backends of a network. On a gateway link that is not
// ours, the network's addresses are these gateways and those that host state
// was made of.
func backends(c *spec.Network, conn *ovs.Conn, gateways []netip.Addr) []host.Backend {
	var scope kernel.Scope
	if state.UsesTunnelBridge(c) { // else a link of that name is another's
		scope.AddrLinks, scope.ProbeLinks = []string{state.TunnelBridge(c)}, []string{state.TunnelBridge(c)}
	}
	if c.LinuxBridge != "" || c.AdoptBridge {
		scope.SharedLinks = []string{state.GatewayLink(c)}
		scope.Gateways = append(gateways, savedGateways(host.NetworkDir(c.Name))...)
	} else {
		scope.AddrLinks = append(scope.AddrLinks, c.Bridge)
	}
	return []host.Backend{ovs.NewBackend(conn, c.Name), kernel.NewBackend(scope), filter.NewBackend(c.Name)}
}

// manyTunnels is how many tunnels are read at every Compare. 32 take ovsdb-server
// and us a millisecond, 500 of them more than making the container's port.
const manyTunnels = 32

// Compare looks at the host state and reports whether it is what want says. It
// takes no lock. bridge is what the caller has just read of OVSDB.
//
// Of more than manyTunnels it does not look at each, as long as they were found
// to be right and nothing has been asked of OVS since: next_cfg, which every
// ovs-vsctl counts up, and the version of the row of their bridge are the same.
// Configuration and nodes are the caller's to look at, by Saved.
func (n *Network) Compare(ctx context.Context, want state.Set, bridge ovs.BridgeInfo) (bool, error) {
	if len(n.Mesh.Peers) <= manyTunnels {
		changes, err := host.Check(ctx, want, n.Backends()...)
		return len(changes) == 0, err
	}
	all := n.Backends()
	mark := fmt.Sprintf("%s %t %s %d", n.Mesh.Self.Address, n.Mesh.Local, bridge.TunnelsVersion, bridge.NextCfg)
	known := n.Dir.Mark() == mark
	if known {
		want = maps.Clone(want)
		maps.DeleteFunc(want, func(id state.ID, _ state.Object) bool { return id.Kind == state.KindTunnel })
		all[0] = ovs.NewBridgeBackend(n.OVS, n.Config.Name)
	}
	changes, err := host.Check(ctx, want, all...)
	if err != nil || len(changes) > 0 {
		return false, err
	}
	if !known {
		err = n.Dir.SetMark(mark)
	}
	return true, err
}

// Saved reports whether the configuration and the nodes are those that host
// state was last made of, and no removal is pending. Without it, or without the
// bridge, there is no use in comparing.
func (n *Network) Saved() bool {
	return n.Dir.IsHanded(n.Mesh.Nodes(), n.Mesh.Self.Name, handed(n.Config)) && len(n.Dir.Buried()) == 0
}

// Ensure brings the host state about and prunes what the configuration no
// longer names. It holds the network's lock meanwhile. It returns the changes
// it meant to make, and the MTU inside containers. The error wraps
// spec.ErrInvalid where the bridge is another than the one that containers are
// attached to.
func (n *Network) Ensure(ctx context.Context) (changes []state.Change, mtu int, err error) {
	return n.ensure(ctx, func() error { return n.moved(ctx) })
}

// Move is Ensure that takes another bridge, too; the containers are for the
// caller to move.
func (n *Network) Move(ctx context.Context) ([]state.Change, error) {
	changes, _, err := n.ensure(ctx, func() error { return nil })
	return changes, err
}

func (n *Network) ensure(ctx context.Context, may func() error) (changes []state.Change, mtu int, err error) {
	unlock, err := n.Dir.Lock(ctx, false)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	if err := may(); err != nil {
		return nil, 0, err
	}
	if n.Config.DatapathType != "netdev" {
		if err := n.OVS.EnsureHandlers(ctx); err != nil {
			return nil, 0, err
		}
	}
	want, mtu, err := n.Want(ctx)
	if err != nil {
		return nil, 0, err
	}
	changes, err = n.reconcile(ctx, want)
	return changes, mtu, err
}

// moved refuses another bridge while containers are on the one that host state
// was made with: pruning that would cut them off.
func (n *Network) moved(ctx context.Context) error {
	raw := n.Dir.Config()
	was, _ := spec.Parse(raw)
	if raw == nil || was.Bridge == n.Config.Bridge {
		return nil // nothing is made yet, or it is the same
	}
	leases, err := n.Dir.Leases(host.LeasesOVS)
	if err != nil {
		return err
	}
	// By their links, too: a lease may be lost.
	links, err := kernel.LinksByAliasPrefix(ctx, spec.AliasPrefix(n.Config.Name))
	if err != nil {
		return err
	}
	attached := map[string]bool{}
	for _, l := range links {
		if _, port, ok := spec.Aliased(n.Config.Name, l.Name, l.Alias); ok {
			attached[port] = true
		}
	}
	for _, l := range leases {
		attached[l.Name] = !l.Busy
	}
	for _, is := range attached {
		if is {
			return fmt.Errorf("%w: bridge %q: containers of network %s are attached to %s: detach them first, or move them with ovs-grectl up",
				spec.ErrInvalid, n.Config.Bridge, n.Config.Name, was.Bridge)
		}
	}
	return nil
}

// reconcile makes the host state what want says. Configuration and nodes are
// saved before anything changes: whatever a failure leaves can be told from
// what is another network's.
func (n *Network) reconcile(ctx context.Context, want state.Set) ([]state.Change, error) {
	backends := n.Backends()
	changes, err := host.Check(ctx, want, backends...)
	if err == nil {
		err = host.InTheWay(changes)
	}
	if err == nil && len(changes) > 0 {
		err = n.Taken(ctx)
	}
	if err == nil {
		err = n.Ring(ctx)
	}
	if err == nil {
		err = n.keepAdvertised(ctx, want)
	}
	if nodes, self, config := n.Mesh.Nodes(), n.Mesh.Self.Name, handed(n.Config); err == nil && !n.Dir.IsHanded(nodes, self, config) {
		err = n.Dir.Hand(nodes, self, config)
	}
	if err != nil {
		return nil, err
	}
	made, err := host.Reconcile(ctx, want, changes, backends...)
	if err == nil && remade(made) {
		var again []state.Change
		if changes, err = host.Check(ctx, want, backends...); err == nil {
			again, err = host.Reconcile(ctx, want, changes, backends...)
			made = append(made, again...)
		}
	}
	if err == nil {
		err = n.purge(ctx)
	}
	return made, err
}

// remade reports whether OVS was told to make a bridge whose link was there and
// up already: the kernel's datapath keeps the links of a
// database that is lost, and OVS then makes them anew, without addresses.
func remade(changes []state.Change) bool {
	raised := map[string]bool{}
	for _, c := range changes {
		if l, ok := c.New.(state.Link); ok {
			was, _ := c.Old.(state.Link)
			raised[l.Name] = !was.Up
		}
	}
	return slices.ContainsFunc(changes, func(c state.Change) bool {
		return c.New != nil && c.Kind() == state.KindBridge && !raised[c.New.ID().Name]
	})
}

// purge takes out the ports of another boot and those that DEL could not.
func (n *Network) purge(ctx context.Context) error {
	names := n.Dir.Buried()
	ports, err := n.OVS.ContainerPorts(ctx, n.Config.Name)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if p.Former() {
			names = append(names, p.Name)
		}
	}
	_, err = n.OVS.DelPorts(ctx, n.Config.Name, names...)
	if err == nil {
		n.Dir.Forget(names...)
	}
	return err
}

// Remove takes the host state away, if no container and nothing persistent
// needs it; force does it all the same. The configuration may have lost its
// keys. Where conn is nil, because OVSDB is down, all of it stays: half a host
// state would pass for a whole one.
func Remove(ctx context.Context, c *spec.Network, conn *ovs.Conn, force bool) ([]state.Change, error) {
	if conn == nil {
		return nil, nil
	}
	dir := host.NetworkDir(c.Name)
	unlock, err := dir.Lock(ctx, false)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if unused, err := dir.Unused(host.LeasesOVS); err != nil || (!unused && !force) {
		return nil, err
	}
	// A container that has lost its lease still lives on what would go.
	if live, err := kernel.LinksByAliasPrefix(ctx, spec.AliasPrefix(c.Name)); err != nil || (len(live) > 0 && !force) {
		return nil, err
	}
	list := []host.Backend{ovs.NewBackend(conn, c.Name), filter.NewBackend(c.Name)}
	if raw := dir.Config(); raw != nil {
		// What host state was made of counts, not what DEL was given. Without it
		// nothing was made, and what the links have is another's.
		if was, _ := spec.Parse(raw); was.Name == c.Name {
			c = was
		}
		list = backends(c, conn, nil)
	}
	if err := removePorts(ctx, c.Name, conn); err != nil {
		return nil, err
	}
	if err := removeExtras(ctx, c, dir); err != nil {
		return nil, err
	}
	changes, err := host.Prune(ctx, state.Set{}, list...)
	if err == nil {
		err = removeTaps(ctx, c.OVSDB, changes)
	}
	if unused, _ := dir.Unused(host.LeasesOVS, host.LeasesRoutes); err == nil && (unused || force) {
		err = dir.Remove()
	} else if err == nil {
		err = dir.Drop()
	}
	return changes, err
}

// removeTaps deletes the taps of OVS's userspace datapath, which last, on
// behalf of an ovs-vswitchd that is dead: it would not know them when it is back.
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

// removePorts takes out what containers have left; an adopted bridge does not
// take it along.
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

// handed is the configuration as Remove will read it, without what belongs to
// one container.
func handed(c *spec.Network) []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(c.Raw, &fields) != nil {
		return nil
	}
	for _, k := range []string{"prevResult", "runtimeConfig", "args", "cni.dev/valid-attachments", "cni.dev/attachments"} {
		delete(fields, k)
	}
	raw, _ := json.Marshal(fields)
	return raw
}
