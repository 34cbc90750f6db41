// Package routes makes this host's routes to its peers' container subnets, and the firewall
// rules that accept packets which come without a tunnel. It does not use OVS.
package routes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// Routes are the routes of one network on this host, for one call.
type Routes struct {
	Config   *config.Routes
	Topology nodes.Topology
	Dir      rundir.Dir
	nextHops state.NextHops
	// bridge is the bridge whose tunnels the routes use.
	bridge string
	// brief: the topology is state.Condensed.
	brief bool
}

// Open finds this host in the network and the links by which it reaches its peers. bridge
// is used for routes of mode tunnel if the configuration names none. If the configuration
// lists no nodes, they are those that ovs-gre has saved. The error wraps config.ErrInvalid
// or nodes.ErrNotReady, and in a user namespace kernel.ErrConfined.
func Open(ctx context.Context, c *config.Routes, bridge string) (*Routes, error) {
	return open(ctx, c, bridge, false)
}

// openBrief is Open for one look at the routes, or to bring them about: where OVS finds
// the peers, it does not read thousands of them.
func openBrief(ctx context.Context, c *config.Routes, bridge string) (*Routes, error) {
	r, err := open(ctx, c, bridge, true)
	if err == nil && r.brief {
		_, err = r.Want() // without error, or it is to name the peer
	}
	if err != nil || r.brief && !r.nextHops.OneTunnel {
		return Open(ctx, c, bridge)
	}
	return r, nil
}

func open(ctx context.Context, c *config.Routes, bridge string, brief bool) (*Routes, error) {
	r := &Routes{Config: c, Dir: rundir.NetworkDir(c.Name)}
	addrs, err := kernel.Addrs(ctx)
	if err != nil {
		return nil, err
	}
	made := sync.OnceValue(func() hostState { return madeHostState(r.Dir) })
	if brief && c.Mode == config.ModeTunnel && !c.HasNodes() && made().fan().IsZero() {
		r.Topology, r.brief = r.Dir.Condensed()
		r.brief = r.brief && (c.Node == "" || c.Node == r.Topology.Self.Name)
	}
	if !r.brief {
		if r.Topology, err = resolve(c, r.Dir, addrs, made); err != nil {
			return nil, err
		}
	}
	if c.Bridge != "" {
		bridge = c.Bridge
	}
	r.bridge = bridge
	if err := r.findTransitLink(ctx, bridge, made); err != nil {
		return nil, err
	}
	for _, s := range r.Topology.Self.Subnets {
		r.nextHops.Sources = append(r.nextHops.Sources, sources(s, addrs)...)
		if link := gatewayLink(s, addrs); s.Addr().Is4() {
			r.nextHops.Gateway4 = cmp.Or(r.nextHops.Gateway4, link)
		} else {
			r.nextHops.Gateway6 = cmp.Or(r.nextHops.Gateway6, link)
		}
	}
	r.nextHops.Underlay = underlayLink(r.Topology.Self.Address, addrs)
	if c.Mode == config.ModeAuto {
		r.nextHops.Connected, err = kernel.Connected(ctx, bridge, r.nextHops.Transit, r.nextHops.Segment)
	}
	return r, err
}

// resolve finds this host among the configuration's nodes, or else among those that
// host state was made of.
func resolve(c *config.Routes, dir rundir.Dir, addrs []kernel.Addr, made func() hostState) (nodes.Topology, error) {
	local := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		local[i] = a.Prefix.Addr()
	}
	from := c.Base
	if !c.HasNodes() {
		list, self, err := dir.SavedNodes()
		if errors.Is(err, nodes.ErrNotReady) {
			err = fmt.Errorf("%w: nodes: missing, and ovs-gre has not handed any on for network %q: list every host of the network",
				config.ErrInvalid, c.Name)
		}
		if err != nil {
			return nodes.Topology{}, err
		}
		from.Nodes, from.Node = list, cmp.Or(c.Node, self)
		from.Fan = made().fan()
	}
	m, err := nodes.Find(&from, local)
	return m, kernel.Rootless(err)
}

// findTransitLink looks for the transit link of bridge; a bridge without one holds the
// segment itself, or is a port of the Linux bridge that does.
func (r *Routes) findTransitLink(ctx context.Context, bridge string, made func() hostState) error {
	if bridge == "" {
		return nil
	}
	if r.Config.Mode == config.ModeDirect {
		_, err := r.encrypted(ctx, bridge)
		return err
	}
	transit, err := kernel.LinkByName(ctx, config.TransitLink(bridge))
	if err == nil && isOVSLink(transit) {
		r.nextHops.Transit = transit.Name
		r.nextHops.OneTunnel = made().oneTunnel(bridge)
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.nextHops.Segment, err = r.encrypted(ctx, bridge); err != nil || r.nextHops.Segment != "" {
		return err
	}
	link, err := kernel.LinkByName(ctx, bridge)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !isOVSLink(link):
		return nil // there are no tunnels
	}
	r.nextHops.Segment = link.Name
	if link.Master != "" {
		r.nextHops.Segment = link.Master
	}
	return nil
}

// isOVSLink reports whether a link is an internal port of OVS, of the kernel's
// datapath or of the userspace one.
func isOVSLink(l kernel.Link) bool { return l.Kind == "openvswitch" || l.Kind == "tun" }

// encrypted is the name of the network's WireGuard link; "" is none.
func (r *Routes) encrypted(ctx context.Context, bridge string) (string, error) {
	name := config.WireGuardName(bridge)
	l, err := kernel.LinkByName(ctx, name)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && l.Alias != config.WireGuardAlias(r.Config.Name):
		return "", nil
	case err != nil:
		return "", err
	}
	return name, tunnelOnly(r.Config)
}

// tunnelOnly returns an error about a mode by which packets would not be encrypted.
func tunnelOnly(c *config.Routes) error {
	if c.Mode == config.ModeTunnel {
		return nil
	}
	return fmt.Errorf("%w: mode %q: what goes by the peer's address is not encrypted, "+
		"and what goes between the network's hosts must be: leave mode out",
		config.ErrInvalid, string(c.Mode))
}

// UseNetwork takes from ovs-gre's configuration whether there is one tunnel for all peers.
// It is for callers that have it; Open takes it from the saved one, which does not exist if
// the host state was made by hand, and from the link of the tunnels' bridge, which may be
// gone. nil is not known.
func (r *Routes) UseNetwork(n *config.Network) {
	if n == nil || r.bridge != n.Bridge || !state.UsesTunnelBridge(n) {
		return
	}
	if r.nextHops.Segment == n.Bridge {
		r.nextHops.Transit, r.nextHops.Segment = config.TransitLink(n.Bridge), ""
	}
	if r.nextHops.Transit != "" {
		r.nextHops.OneTunnel = state.OneTunnel(n)
	}
}

// hostState is what routes depend on of the configuration that ovs-gre has made the
// host state of.
type hostState struct {
	Bridge string
	Tunnel struct{ Ports string }
	Nodes  json.RawMessage
}

// madeHostState reads it as far as it can; Bridge is "" where there is none.
func madeHostState(dir rundir.Dir) hostState {
	made := hostState{Bridge: config.DefaultBridge}
	if json.Unmarshal(dir.SavedConfig(), &made) != nil {
		return hostState{}
	}
	return made
}

// oneTunnel reports whether all peers share one tunnel port, on this bridge.
func (h hostState) oneTunnel(bridge string) bool {
	return h.Bridge == bridge && (h.Tunnel.Ports == config.PortsOne || config.IsFan(h.Nodes))
}

// fan stands for the nodes; zero where they are listed.
func (h hostState) fan() (f config.Fan) {
	if config.IsFan(h.Nodes) {
		f, _ = config.DecodeFan(h.Nodes) // it was valid, or nothing was made of it
	}
	return f
}

// sources are this host's addresses in one of its subnets, the gateway first.
func sources(subnet netip.Prefix, addrs []kernel.Addr) []netip.Addr {
	var list []netip.Addr
	for _, a := range addrs {
		switch ip := a.Prefix.Addr(); {
		case ip == config.Gateway(subnet):
			list = slices.Insert(list, 0, ip)
		case subnet.Contains(ip) && !slices.Contains(list, ip):
			list = append(list, ip)
		}
	}
	return list
}

// gatewayLink is the link with this host's address in one of its subnets, preferably the
// gateway's; "" is none. Single addresses (/32, /128) do not count: the plugin ptp gives
// one to each container's link.
func gatewayLink(subnet netip.Prefix, addrs []kernel.Addr) (link string) {
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		if !a.Prefix.IsSingleIP() && subnet.Contains(ip) && (link == "" || ip == config.Gateway(subnet)) {
			link = a.Link
		}
	}
	return link
}

// underlayLink is the link with this host's address on the underlay; "" is none, or lo.
func underlayLink(self netip.Addr, addrs []kernel.Addr) string {
	for _, a := range addrs {
		if a.Prefix.Addr() == self && a.Link != "lo" {
			return a.Link
		}
	}
	return ""
}

// Want returns the wanted routes and neighbours, and the wanted accepts of packets that
// come without a tunnel.
func (r *Routes) Want() (state.Set, error) {
	return state.DesiredRoutes(r.Config, r.Topology, r.nextHops)
}

// Backends are the backends of what Want returns. In mode tunnel there are no accepts;
// those are ovs-gre's.
func (r *Routes) Backends() []state.Backend {
	if r.Config.Mode == config.ModeTunnel {
		return []state.Backend{r.kernel()}
	}
	return []state.Backend{r.kernel(), firewall.NewRoutesBackend(r.Config.Name)}
}

func (r *Routes) kernel() state.Backend {
	scope := kernel.Scope{RouteTable: r.Config.Table, RouteSources: append(r.Topology.Self.Gateways(), r.nextHops.Sources...)}
	if r.nextHops.Transit != "" {
		scope.NeighLinks = []string{r.nextHops.Transit}
	}
	return kernel.NewBackend(scope)
}

// Check is Check of what Open returns, in less time where there are thousands of peers.
func Check(ctx context.Context, c *config.Routes, bridge string) ([]state.Change, error) {
	r, err := openBrief(ctx, c, bridge)
	if err != nil {
		return nil, err
	}
	return r.Check(ctx)
}

// Check returns what is amiss. It changes nothing.
func (r *Routes) Check(ctx context.Context) ([]state.Change, error) {
	want, err := r.Want()
	if err != nil {
		return nil, err
	}
	return state.Check(ctx, want, r.Backends()...)
}

// Sync makes wanted routes, removes others of the network, and returns the changes that it
// made. It locks the network only if there is a difference.
func (r *Routes) Sync(ctx context.Context) ([]state.Change, error) {
	config := r.savedConfig()
	if slices.Equal(r.Dir.SavedRoutesConfig(), config) {
		if changes, err := r.Check(ctx); err != nil || len(changes) == 0 {
			return nil, err
		}
	}
	unlock, err := r.Dir.Lock(ctx, false)
	if err != nil {
		return nil, err
	}
	defer unlock()
	want, err := r.Want()
	if err != nil {
		return nil, err
	}
	changes, err := state.Check(ctx, want, r.Backends()...)
	if err == nil {
		err = state.CheckForeign(changes)
	}
	was := r.Dir.SavedRoutesConfig()
	if err == nil {
		// Saved before anything is made: Remove needs it to know what is ours.
		err = r.Dir.SaveRoutesConfig(config)
	}
	if err != nil {
		return nil, err
	}
	made, err := state.Reconcile(ctx, want, changes, r.Backends()...)
	if err == nil {
		err = r.pruneFormer(ctx, was)
	}
	return made, err
}

// pruneFormer removes what only the former configuration needed: routes in another table,
// accepts of packets without a tunnel. raw is that configuration.
func (r *Routes) pruneFormer(ctx context.Context, raw []byte) error {
	was, _ := config.ParseRoutes(raw)
	if raw == nil {
		return nil
	}
	var errs []error
	if was.Table != r.Config.Table {
		_, err := state.Prune(ctx, state.Set{}, kernel.NewBackend(kernel.Scope{
			RouteTable: was.Table, RouteSources: append(r.Topology.Self.Gateways(), r.nextHops.Sources...)}))
		errs = append(errs, err)
	}
	if was.Mode != r.Config.Mode && r.Config.Mode == config.ModeTunnel {
		_, err := state.Prune(ctx, state.Set{}, firewall.NewRoutesBackend(r.Config.Name))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Remove removes the network's routes if there are no attachments and the network is not
// persistent; with force in any case. It uses the saved configuration, since c may have
// lost its keys.
func Remove(ctx context.Context, c *config.Routes, bridge string, force bool) ([]state.Change, error) {
	return remove(ctx, c, bridge, "", force)
}

func remove(ctx context.Context, c *config.Routes, bridge, leaving string, force bool) ([]state.Change, error) {
	dir := rundir.NetworkDir(c.Name)
	unlock, err := dir.Lock(ctx, false)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if unused, err := dir.Unused(rundir.LeasesRoutes); err != nil || (!unused && !force) {
		return nil, err
	}
	if used, err := hasContainers(ctx, c.Name, leaving); err != nil || (used && !force) {
		return nil, err
	}
	var changes []state.Change
	if raw := dir.SavedRoutesConfig(); raw != nil { // otherwise nothing was made
		if was, _ := config.ParseRoutes(raw); was.Name == c.Name {
			c = was
		}
		var r *Routes
		if r, err = Open(ctx, c, bridge); err == nil {
			changes, err = state.Prune(ctx, state.Set{}, r.kernel())
		} else if errors.Is(err, config.ErrInvalid) || errors.Is(err, nodes.ErrNotReady) {
			err = nil // there are no nodes any more: the routes went with ovs-gre's links
		}
		// The accepts are known by their comment, without nodes.
		accepts, failed := state.Prune(ctx, state.Set{}, firewall.NewRoutesBackend(c.Name))
		changes, err = append(changes, accepts...), errors.Join(err, failed)
		if err == nil {
			err = dir.RemoveRoutesConfig()
		}
	}
	if unused, _ := dir.Unused(rundir.LeasesOVS, rundir.LeasesRoutes); err == nil && (unused || force) &&
		dir.SavedConfig() == nil && len(dir.PendingRemovals()) == 0 {
		return changes, dir.Remove()
	}
	return changes, err
}

// hasContainers reports whether the network has a live container other than leaving, by
// the links: a container's lease may be lost.
func hasContainers(ctx context.Context, network, leaving string) (bool, error) {
	links, err := kernel.LinksByAliasPrefix(ctx, config.AliasPrefix(network))
	return slices.ContainsFunc(links, func(l kernel.Link) bool {
		_, port, ok := config.ParseAlias(network, l.Name, l.Alias)
		return ok && port != leaving
	}), err
}

// savedConfig is the configuration as it is saved for Remove: without the keys of a single
// call, with the bridge that the previous result named, and with this host's node. The
// peers are not needed: routes are known by this host's addresses.
func (r *Routes) savedConfig() []byte {
	fields := config.PersistentFields(r.Config.Raw)
	if fields == nil {
		return nil
	}
	delete(fields, "nodesFile")
	fields["nodes"] = config.EncodeNodes([]config.Node{r.Topology.Self})
	if bridge, err := json.Marshal(r.bridge); err == nil && len(r.bridge) <= 13 && r.bridge != "" && r.Config.Mode != config.ModeDirect {
		fields["bridge"] = bridge
	}
	if node, err := json.Marshal(r.Topology.Self.Name); err == nil {
		fields["node"] = node
	}
	raw, _ := json.Marshal(fields)
	return raw
}

// Plan returns the routes, and the neighbours they need, that this host has once ovs-gre
// has made the host state of n. The nodes are those of m unless c lists its own. It reads
// neither OVS nor existing routes.
func Plan(ctx context.Context, c *config.Routes, m nodes.Topology, n *config.Network) (state.Set, error) {
	local, err := kernel.Addrs(ctx)
	if err != nil {
		return nil, err
	}
	if c.HasNodes() {
		if m, err = resolve(c, rundir.NetworkDir(c.Name), local, nil); err != nil {
			return nil, err
		}
	}
	bridge := n.Bridge
	if c.Bridge != "" {
		bridge = c.Bridge
	}
	gw := state.GatewayLink(n)
	w := state.NextHops{Sources: m.Self.Gateways(), Underlay: underlayLink(m.Self.Address, local), Gateway4: gw, Gateway6: gw}
	if state.Guarded(n) {
		if err := tunnelOnly(c); err != nil {
			return nil, err
		}
	}
	switch {
	case state.Encrypted(n):
		w.Segment = config.WireGuardName(bridge)
	case n.Tunnel.Type == config.TunnelNone || c.Mode == config.ModeDirect:
	case state.UsesTunnelBridge(n):
		w.Transit, w.OneTunnel = config.TransitLink(bridge), state.OneTunnel(n) && bridge == n.Bridge
	default:
		w.Segment = gw
	}
	if c.Mode == config.ModeAuto {
		w.Connected, err = kernel.Connected(ctx, bridge, w.Transit, w.Segment)
	}
	if err != nil {
		return nil, err
	}
	return state.DesiredRoutes(c, m, w)
}
