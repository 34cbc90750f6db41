// Package network makes, compares and removes the host state of one network: bridges,
// tunnels, addresses, packet filter. Package attach has the containers, package routes
// the routes to peers.
package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// A Network is one network on this host, for one call.
type Network struct {
	Config   *config.Network
	Topology nodes.Topology
	Dir      rundir.Dir
	// OVS is an open connection to OVSDB.
	OVS *ovs.Conn
	// Unreachable are the peers that this host has no route to; Want sets it. Their
	// tunnels do not work; all others do.
	Unreachable []config.Node
}

// Resolve loads the configuration's nodes and finds this host among them. The
// error wraps nodes.ErrNotReady or config.ErrInvalid, and in a user namespace
// kernel.ErrConfined.
func Resolve(ctx context.Context, b *config.Base) (nodes.Topology, error) {
	local, err := kernel.LocalAddrs(ctx)
	if err != nil {
		return nodes.Topology{}, err
	}
	m, err := nodes.Find(b, local)
	return m, kernel.Rootless(err)
}

// Open finds this host in the network and connects to OVSDB. The caller closes
// Network.OVS. The errors are as of Resolve and ovs.Dial.
func Open(ctx context.Context, c *config.Network) (*Network, error) {
	m, err := Resolve(ctx, &c.Base)
	if err != nil {
		return nil, err
	}
	conn, err := ovs.Dial(ctx, c.OVSDB)
	if err != nil {
		return nil, kernel.Rootless(err)
	}
	return &Network{Config: c, Topology: m, Dir: rundir.NetworkDir(c.Name), OVS: conn}, nil
}

// Want returns the desired host state and the MTU inside containers, in bytes. It looks up
// the routes to all peers.
func (n *Network) Want(ctx context.Context) (state.Set, int, error) {
	peers := make([]netip.Addr, len(n.Topology.Peers))
	for i, p := range n.Topology.Peers {
		peers[i] = p.Address
	}
	underlay, unreachable, err := kernel.UnderlayMTU(ctx, n.Topology.Self.Address, peers)
	if err != nil {
		return nil, 0, err
	}
	n.Unreachable = nil
	for _, a := range unreachable {
		n.Unreachable = append(n.Unreachable, n.Topology.Peers[slices.Index(peers, a)])
	}
	mtu, err := state.MTU(n.Config, n.Topology, underlay)
	if err = errors.Join(err, state.CheckIPsec(n.Config, n.Topology)); err != nil {
		return nil, 0, err
	}
	c := *n.Config
	if n.OVS != nil && c.AdoptBridge && c.DatapathType == "" {
		// The tunnels' bridge has the same datapath type as the containers' bridge.
		if c.DatapathType, _, err = n.OVS.DatapathType(ctx, c.Bridge); err != nil {
			return nil, 0, err
		}
	}
	want := state.Desired(&c, n.Topology, mtu)
	if kernel.CanProbe() {
		want.Put(state.Probes(&c, n.Topology)...)
	}
	return want, mtu, nil
}

// UnreachablePeers is a text about the peers that this host has no route to; "" if there
// are none. Want must have been called.
func (n *Network) UnreachablePeers() string {
	if names := few(n.Unreachable); names != "" {
		return "this host has no route to " + names
	}
	return ""
}

// few lists the names of nodes, of many the first five; "" is none.
func few(nodes []config.Node) string {
	const most = 5
	var names []string
	for _, p := range nodes {
		names = append(names, p.String())
	}
	if more := len(names) - most; more > 1 {
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// Backends are the backends of the network's host state, in the order of their changes.
func (n *Network) Backends() []state.Backend {
	return backends(n.Config, n.OVS, n.Topology.Self.Gateways(), false)
}

// savedGateways are the gateway addresses that this host has had in the network.
// A version before 0.2.0 saved only those of the nodes.
func savedGateways(dir rundir.Dir) []netip.Addr {
	gateways := dir.Gateways()
	list, self, err := dir.SavedNodes()
	if err != nil {
		return gateways
	}
	for _, node := range list {
		if node.Name == self {
			gateways = append(gateways, node.Gateways()...)
		}
	}
	return gateways
}

// backends returns the backends of a network. gateways and the saved ones are the
// network's addresses on a gateway link that is not ours. exact is as in
// kernel.WireGuardScope.
func backends(c *config.Network, conn *ovs.Conn, gateways []netip.Addr, exact bool) []state.Backend {
	var scope kernel.Scope
	if state.UsesTunnelBridge(c) { // otherwise a link of that name is not ours
		scope.AddrLinks, scope.ProbeLinks = []string{state.TunnelBridge(c)}, []string{state.TunnelBridge(c)}
	}
	if c.LinuxBridge != "" || c.AdoptBridge {
		scope.SharedLinks = []string{state.GatewayLink(c)}
		scope.Gateways = append(gateways, savedGateways(rundir.NetworkDir(c.Name))...)
	} else {
		scope.AddrLinks = append(scope.AddrLinks, c.Bridge)
	}
	var list []state.Backend
	if state.Encrypted(c) {
		link := config.WireGuardName(c.Bridge)
		scope.AddrLinks = append(scope.AddrLinks, link)
		scope.WireGuard = kernel.WireGuardScope{Network: c.Name, Link: link, Exact: exact}
	}
	if state.Guarded(c) {
		list = append(list, firewall.NewGuardBackend(state.GuardForm(c))) // first to come and last to go
	}
	return append(list, ovs.NewBackend(conn, c.Name), kernel.NewBackend(scope), firewall.NewBackend(c.Name))
}

// A Comparison compares the host state with the wanted one; Begin begins it.
type Comparison struct {
	net      *Network
	backends []state.Backend
	// mark identifies the state of OVSDB on a host with many tunnels; "" is not many.
	// known: at this mark the tunnels were found right before.
	mark  string
	known bool
	want  state.Set
	mtu   int
}

// Begin begins to compare the host state: it sends the requests to OVS, which does not
// answer later while it makes a port. It takes no lock. bridge has just been read by the
// caller.
//
// With more than maxComparedTunnels, the tunnels are not read again if they were found
// right before and OVSDB's next_cfg, which every ovs-vsctl increments, and the version of
// the row of their bridge have not changed since. The caller compares configuration and
// nodes by IsSaved.
func (n *Network) Begin(ctx context.Context, bridge ovs.BridgeInfo) (*Comparison, error) {
	c := &Comparison{net: n}
	rows := ovs.NewBackend(n.OVS, n.Config.Name)
	rows.Brief()
	if len(n.Topology.Peers) > maxComparedTunnels && !state.Encrypted(n.Config) && !state.OneTunnel(n.Config) {
		c.mark = fmt.Sprintf("%s %t %s%s %d", n.Topology.Self.Address, n.Topology.Local, bridge.TunnelsVersion, secretsMark(n.Config),
			bridge.NextCfg)
		if c.known = n.Dir.Mark() == c.mark; c.known {
			rows = ovs.NewBridgeBackend(n.OVS, n.Config.Name)
		}
	}
	var err error
	c.backends, err = n.ask(ctx, rows)
	return c, err
}

// secretsMark says when the files that options of tunnels are read from were
// changed; "" where there are none.
func secretsMark(c *config.Network) string {
	var mark string
	for _, o := range c.Tunnel.Options {
		if o.File == "" {
			continue
		}
		mark += " ?" // who reads it says why
		if st, err := os.Stat(o.File); err == nil {
			mark += strconv.FormatInt(st.ModTime().UnixNano(), 10)
		}
	}
	return mark
}

// Check returns the changes that the host state needs, and the MTU inside containers, in
// bytes. It changes nothing.
func (n *Network) Check(ctx context.Context) (changes []state.Change, mtu int, err error) {
	want, mtu, err := n.Want(ctx)
	if err == nil {
		changes, err = state.Check(ctx, want, n.Backends()...)
	}
	return changes, mtu, err
}

// MTU is that inside containers.
func (c *Comparison) MTU(ctx context.Context) (int, error) {
	if c.want != nil {
		return c.mtu, nil
	}
	var err error
	c.want, c.mtu, err = c.net.Want(ctx)
	return c.mtu, err
}

// Same reports whether the host state is the wanted one.
func (c *Comparison) Same(ctx context.Context) (bool, error) {
	if _, err := c.MTU(ctx); err != nil {
		return false, err
	}
	if c.known {
		maps.DeleteFunc(c.want, func(id state.ID, _ state.Object) bool { return id.Kind == state.KindTunnel })
	}
	changes, err := state.Check(ctx, c.want, c.backends...)
	if err != nil || len(changes) > 0 {
		return false, err
	}
	if c.mark != "" && !c.known {
		err = c.net.Dir.SetMark(c.mark)
	}
	return true, err
}

// AskBackends is Backends, with the requests to OVS already sent that the first Observe
// needs: those for the network's bridges and for ports.
func (n *Network) AskBackends(ctx context.Context, ports ...state.Object) ([]state.Backend, error) {
	return n.ask(ctx, ovs.NewBackend(n.OVS, n.Config.Name), ports...)
}

func (n *Network) ask(ctx context.Context, rows *ovs.Backend, objs ...state.Object) ([]state.Backend, error) {
	c := n.Config
	objs = append(objs, state.Bridge{Name: c.Bridge, Adopted: c.AdoptBridge})
	if state.UsesTunnelBridge(c) {
		b := state.Bridge{Name: state.TunnelBridge(c)}
		if state.OneTunnel(c) {
			b.FailMode = state.FailSecure // its flows are read by OpenFlow
		}
		objs = append(objs, b)
	}
	all := n.Backends()
	all[slices.IndexFunc(all, func(b state.Backend) bool { _, is := b.(*ovs.Backend); return is })] = rows
	return all, rows.Ask(ctx, objs...)
}

// savedConfig is the configuration as it is saved for Remove, without the keys of a
// single call.
func savedConfig(c *config.Network) []byte {
	fields := config.PersistentFields(c.Raw)
	if fields == nil {
		return nil
	}
	raw, _ := json.Marshal(fields)
	return raw
}
