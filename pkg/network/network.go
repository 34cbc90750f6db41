// Package network is one network on this host: what of bridges, tunnels,
// addresses and filter it should have, and how to get and lose it.
// Containers are package attach's business, routes package routes'.
package network

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

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
	underlay, err := kernel.UnderlayMTU(ctx, n.Mesh.Self.Address, peers)
	if err != nil {
		return nil, 0, err
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
	return state.Desired(&c, n.Mesh, mtu), mtu, nil
}

// Backends are where the network's host state lives.
func (n *Network) Backends() []host.Backend { return backends(n.Config, n.OVS) }

func backends(c *spec.Network, conn *ovs.Conn) []host.Backend {
	links := []string{state.GatewayLink(c), spec.TransitName(c.Bridge)}
	return []host.Backend{ovs.NewBackend(conn, c.Name), kernel.NewBackend(kernel.Scope{AddrLinks: links}), filter.NewBackend(c.Name)}
}

// Ensure brings the host state about, prunes what the configuration no longer
// names, and leaves its stamp. It holds the network's lock meanwhile.
func (n *Network) Ensure(ctx context.Context) (changes []state.Change, mtu int, err error) {
	unlock, err := n.Dir.Lock(ctx, false)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	if s, ok, err := n.stamp(ctx); err != nil || ok {
		return nil, s.mtu, err // another call was quicker
	}
	if err := n.moved(); err != nil {
		return nil, 0, err
	}
	return n.ensure(ctx)
}

// moved refuses another bridge while containers are on the one that host state
// was made with: pruning that would cut them off.
func (n *Network) moved() error {
	was, err := spec.Parse(n.Dir.Config())
	if err != nil || was.Bridge == n.Config.Bridge {
		return nil // nothing is made yet, or it is the same
	}
	leases, err := n.Dir.Leases(host.LeasesOVS)
	if err != nil {
		return err
	}
	for _, l := range leases {
		if !l.Busy {
			return fmt.Errorf("%w: bridge %q: containers of network %s are attached to %s: detach them first, or move them with ovs-grectl up", spec.ErrInvalid, n.Config.Bridge, n.Config.Name, was.Bridge)
		}
	}
	return nil
}

// Repair is Ensure that trusts no stamp.
func (n *Network) Repair(ctx context.Context) ([]state.Change, error) {
	unlock, err := n.Dir.Lock(ctx, false)
	if err != nil {
		return nil, err
	}
	defer unlock()
	changes, _, err := n.ensure(ctx)
	return changes, err
}

func (n *Network) ensure(ctx context.Context) ([]state.Change, int, error) {
	want, mtu, err := n.Want(ctx)
	if err != nil {
		return nil, 0, err
	}
	changes, err := host.Match(ctx, want, n.Backends()...)
	if err == nil && remade(changes) {
		var again []state.Change
		again, err = host.Match(ctx, want, n.Backends()...)
		changes = append(changes, again...)
	}
	if err == nil {
		err = n.purge(ctx)
	}
	if err == nil {
		err = n.Dir.Hand(n.Mesh.Nodes(), n.Mesh.Self.Name, handed(n.Config))
	}
	if err == nil {
		err = n.setStamp(ctx, mtu)
	}
	return changes, mtu, n.halfway(ctx, err)
}

// halfway takes the stamp away where err says that the host state was not
// brought about: what is half of this configuration must not pass for all of
// the one before, to which an operator may go back.
func (n *Network) halfway(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	unset := n.OVS.SetStamp(ctx, n.Config.Name, n.Config.Bridge, n.stampPort(), "")
	if errors.Is(unset, host.ErrUnavailable) {
		return err // which is most likely why
	}
	return errors.Join(err, unset)
}

// remade reports whether OVS was told to make a bridge whose link was there and
// up already: the kernel's datapath keeps the links of a
// database that is lost, and OVS then makes them anew, without addresses.
func remade(changes []state.Change) bool {
	up := map[string]bool{}
	for _, c := range changes {
		if l, ok := c.New.(state.Link); ok {
			up[l.Name] = true
		}
	}
	return slices.ContainsFunc(changes, func(c state.Change) bool {
		return c.New != nil && c.Kind() == state.KindBridge && !up[c.New.ID().Name]
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
	if raw := dir.Config(); raw != nil {
		// What host state was made of counts, not what DEL was given.
		if was, err := spec.Parse(raw); err == nil {
			c = was
		}
	}
	if err := removePorts(ctx, c.Name, conn); err != nil {
		return nil, err
	}
	changes, err := host.Prune(ctx, state.Set{}, backends(c, conn)...)
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

// A stamp on the bridge says that the host state stands: what it was made of,
// in this boot, and which links it has. Links that OVS has made anew since
// have another index, so that they are seen to.
type stamp struct {
	sum             string
	mtu             int
	bridge, transit int
}

func (s stamp) String() string { return fmt.Sprintf("%s %d %d %d", s.sum, s.mtu, s.bridge, s.transit) }

// Standing reports whether the stamp that info has says that the host state
// stands, and the MTU inside containers.
func (n *Network) Standing(ctx context.Context, info ovs.BridgeInfo) (mtu int, ok bool, err error) {
	var was stamp
	if _, err := fmt.Sscan(info.Stamp, &was.sum, &was.mtu, &was.bridge, &was.transit); err != nil {
		return 0, false, nil
	}
	now, err := n.now(ctx, was.mtu)
	return was.mtu, err == nil && now == was, err
}

func (n *Network) stamp(ctx context.Context) (stamp, bool, error) {
	p, err := n.OVS.StartBridge(ctx, n.Config.Bridge, n.stampPort(), "")
	if err != nil {
		return stamp{}, false, err
	}
	info, err := p.Bridge(ctx, n.Config.Name)
	if err != nil {
		return stamp{}, false, err
	}
	mtu, ok, err := n.Standing(ctx, info)
	_, _, handed := n.Dir.Handed()
	return stamp{mtu: mtu}, ok && handed == nil && len(n.Dir.Buried()) == 0, err
}

func (n *Network) stampPort() string { return spec.TransitName(n.Config.Bridge) }

// StartBridge asks OVSDB for what Standing needs, and for the port.
func (n *Network) StartBridge(ctx context.Context, port string) (*ovs.Pending, error) {
	return n.OVS.StartBridge(ctx, n.Config.Bridge, n.stampPort(), port)
}

// now is the stamp as it would be made now.
func (n *Network) now(ctx context.Context, mtu int) (stamp, error) {
	s := stamp{sum: n.sum(), mtu: mtu}
	for name, index := range map[string]*int{n.Config.Bridge: &s.bridge, n.stampPort(): &s.transit} {
		l, err := kernel.LinkByName(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return s, err
		}
		if l.Up {
			*index = l.Index
		}
	}
	return s, nil
}

func (n *Network) setStamp(ctx context.Context, mtu int) error {
	s, err := n.now(ctx, mtu)
	if err != nil {
		return err
	}
	return n.OVS.SetStamp(ctx, n.Config.Name, n.Config.Bridge, n.stampPort(), s.String())
}

// sum is a hash of all that host state is made of.
func (n *Network) sum() string {
	c := *n.Config
	c.Base = spec.Base{Name: c.Name}
	c.IPAM, c.MAC, c.Timeout, c.OVSDB = spec.IPAM{}, "", 0, ""
	h := sha256.New()
	if c.Tunnel.Key != nil {
		fmt.Fprintf(h, "key %d ", *c.Tunnel.Key)
		c.Tunnel.Key = nil
	}
	fmt.Fprintf(h, "%+v %+v %s", c, n.Mesh, ovs.BootID())
	return fmt.Sprintf("%x", h.Sum(nil)[:16])
}
