// Package routes is this host's routes to its peers' container subnets, and the
// accepts of what comes without a tunnel: what route-sync and ovs-grectl want of
// the kernel. It knows no OVS.
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
	// bridge is the one whose tunnels carry the routes.
	bridge string
	// brief: the topology is state.Condensed.
	brief bool
}

// Open finds this host in the network and the ways out of it. bridge is what
// routes of mode tunnel go by where the configuration names none. Nodes that
// the configuration does not list are the ones that ovs-gre handed on.
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

// encrypted is the network's WireGuard link, by which every packet to a peer goes;
// "" is none.
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

// tunnelOnly refuses a mode by which packets would pass in clear.
func tunnelOnly(c *config.Routes) error {
	if c.Mode == config.ModeTunnel {
		return nil
	}
	return fmt.Errorf("%w: mode %q: what goes by the peer's address is not encrypted, "+
		"and what goes between the network's hosts must be: leave mode out",
		config.ErrInvalid, string(c.Mode))
}

// Beside says what ovs-gre's configuration is, to a caller that has it: host state
// that a person has made by hand has left none, and a tunnels' bridge that is gone
// leaves no link.
func (r *Routes) Beside(n *config.Network) {
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

// sources are this host's addresses in a subnet of its own, the gateway first.
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

// gatewayLink is the link that has this host's address in a subnet of its own,
// the gateway's if it has that; "" is none. An address of no subnet's length is
// not the gateway link's: the plugin ptp gives one to each container's link.
func gatewayLink(subnet netip.Prefix, addrs []kernel.Addr) (link string) {
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		if !a.Prefix.IsSingleIP() && subnet.Contains(ip) && (link == "" || ip == config.Gateway(subnet)) {
			link = a.Link
		}
	}
	return link
}

// underlayLink is the link that has this host's address on the underlay; "" is
// none, or one by which nothing comes.
func underlayLink(self netip.Addr, addrs []kernel.Addr) string {
	for _, a := range addrs {
		if a.Prefix.Addr() == self && a.Link != "lo" {
			return a.Link
		}
	}
	return ""
}

// Want returns the routes and neighbours that this host should have, and the
// accepts of what comes without a tunnel.
func (r *Routes) Want() (state.Set, error) {
	return state.DesiredRoutes(r.Config, r.Topology, r.nextHops)
}

// Backends are where they live. Tunnels' accepts are ovs-gre's.
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

// Sync adds and changes what is wanted, prunes what is not, and returns the
// changes it made. It locks the network only if there is something to do.
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
		// Before anything is made: without it nothing is ours to remove.
		err = r.Dir.SaveRoutesConfig(config)
	}
	if err != nil {
		return nil, err
	}
	made, err := state.Reconcile(ctx, want, changes, r.Backends()...)
	if err == nil {
		err = r.leave(ctx, was)
	}
	return made, err
}

// leave prunes what the configuration before had and this one has not: the
// table that the routes were in, the accepts of routes without a tunnel.
func (r *Routes) leave(ctx context.Context, raw []byte) error {
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

// Remove takes the network's routes away, if no attachment and nothing
// persistent needs them; force does it all the same. A configuration that has
// lost its keys is made up for by what Sync left.
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
	if used, err := lives(ctx, c.Name, leaving); err != nil || (used && !force) {
		return nil, err
	}
	var changes []state.Change
	if raw := dir.SavedRoutesConfig(); raw != nil { // else nothing was made, and what is there is another's
		if was, _ := config.ParseRoutes(raw); was.Name == c.Name {
			c = was
		}
		var r *Routes
		if r, err = Open(ctx, c, bridge); err == nil {
			changes, err = state.Prune(ctx, state.Set{}, r.kernel())
		} else if errors.Is(err, config.ErrInvalid) || errors.Is(err, nodes.ErrNotReady) {
			err = nil // no nodes any more: ovs-gre's links have taken the routes along
		}
		// The accepts are known by their mark, whatever nodes there are.
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

// lives reports whether a container of ovs-gre's is on the network, but for the
// one that leaves: its claim may be lost, the link says whose it is.
func lives(ctx context.Context, network, leaving string) (bool, error) {
	links, err := kernel.LinksByAliasPrefix(ctx, config.AliasPrefix(network))
	return slices.ContainsFunc(links, func(l kernel.Link) bool {
		_, port, ok := config.ParseAlias(network, l.Name, l.Alias)
		return ok && port != leaving
	}), err
}

// savedConfig is the configuration as Remove will read it: with the bridge that
// the previous result named and this host's entry of a list that may be gone by
// then; the peers' routes are known by this host's addresses.
func (r *Routes) savedConfig() []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(r.Config.Raw, &fields) != nil {
		return nil
	}
	for _, k := range []string{"prevResult", "runtimeConfig", "args", "cni.dev/valid-attachments", "cni.dev/attachments", "nodesFile"} {
		delete(fields, k)
	}
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

// Plan returns the routes that this host has, and the neighbours they need,
// once ovs-gre has made the host state of n, with the nodes of m unless c lists
// its own. It looks neither at OVS nor at what there is already.
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
