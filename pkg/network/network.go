// Package network is one network on this host: what of bridges, tunnels,
// addresses and filter it should have, and how to get and lose it.
// Containers are package attach's business, routes package routes'.
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
	// OVS is an open connection.
	OVS *ovs.Conn
	// Unreachable are the peers that this host has no route to; Want finds
	// them. Their tunnels carry nothing, and nothing else suffers.
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
// Network.OVS.
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

// Want returns the desired host state and the MTU inside containers.
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
		// The tunnels' bridge has the datapath of the containers'.
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

// UnreachablePeers says to which peers this host has no route; "" is to each it has one.
// It is about what Want has found.
func (n *Network) UnreachablePeers() string {
	if names := few(n.Unreachable); names != "" {
		return "this host has no route to " + names
	}
	return ""
}

// few names nodes, the first five of many; "" is none.
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

// Backends are where the network's host state lives.
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

// backends returns the backends of a network. On a gateway link that is not
// ours, the network's addresses are these gateways and those that host state
// was made of. exact is kernel.WireGuardScope's.
func backends(c *config.Network, conn *ovs.Conn, gateways []netip.Addr, exact bool) []state.Backend {
	var scope kernel.Scope
	if state.UsesTunnelBridge(c) { // else a link of that name is another's
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

// A Comparison is a look at the host state that has begun.
type Comparison struct {
	net      *Network
	backends []state.Backend
	// mark says what OVSDB is like, where the tunnels are many; "" is where they
	// are not. known: the tunnels were right then.
	mark  string
	known bool
	want  state.Set
	mtu   int
}

// Begin begins to look at the host state: it asks OVS, which has other things
// to do once it makes a port. It takes no lock. bridge is what the caller has
// just read of OVSDB.
//
// Of more than maxComparedTunnels it does not look at each, as long as they were found
// to be right and nothing has been asked of OVS since: next_cfg, which every
// ovs-vsctl counts up, and the version of the row of their bridge are the same.
// Configuration and nodes are the caller's to look at, by IsSaved.
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

// MTU is that inside containers.
func (c *Comparison) MTU(ctx context.Context) (int, error) {
	if c.want != nil {
		return c.mtu, nil
	}
	var err error
	c.want, c.mtu, err = c.net.Want(ctx)
	return c.mtu, err
}

// Same reports whether the host state is what it should be.
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

// Asked is Backends that have asked OVS already for what the first look at them
// needs, which is to be for the network's bridges and ports.
func (n *Network) Asked(ctx context.Context, ports ...state.Object) ([]state.Backend, error) {
	return n.ask(ctx, ovs.NewBackend(n.OVS, n.Config.Name), ports...)
}

func (n *Network) ask(ctx context.Context, rows *ovs.Backend, objs ...state.Object) ([]state.Backend, error) {
	c := n.Config
	objs = append(objs, state.Bridge{Name: c.Bridge, Adopted: c.AdoptBridge})
	if state.UsesTunnelBridge(c) {
		b := state.Bridge{Name: state.TunnelBridge(c)}
		if state.OneTunnel(c) {
			b.FailMode = state.FailSecure // its flows are counted
		}
		objs = append(objs, b)
	}
	all := n.Backends()
	all[slices.IndexFunc(all, func(b state.Backend) bool { _, is := b.(*ovs.Backend); return is })] = rows
	return all, rows.Ask(ctx, objs...)
}

// savedConfig is the configuration as Remove will read it, without what belongs to
// one container.
func savedConfig(c *config.Network) []byte {
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
