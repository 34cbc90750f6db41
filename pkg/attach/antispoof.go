package attach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// ignoreRouters makes the container's interface ignore ICMPv6 redirects, and router
// advertisements if IPAM gives its addresses and routes, before it is up. In segments
// other than host the gateway itself sends redirects: its routes lead out by the link
// that packets came by. The shorter way of these redirects does not exist.
func (a *adding) ignoreRouters() error {
	managed := a.Config.IPAM.Type != ""
	if !managed && a.Config.Segment == config.SegmentHost {
		return nil
	}
	return a.ns.IgnoreRedirects(a.IfName, managed)
}

// knowsMACs reports whether the host has permanent neighbour entries of its containers,
// which ARP and neighbour discovery do not change. In segment mesh it has none, because
// a neighbour may be on any host.
func knowsMACs(c *config.Network) bool { return c.Segment != config.SegmentMesh && c.IPAM.Type != "" }

// hostMAC is the MAC address of the host's end of a veth pair, derived from that of the
// container's end. A neighbour entry whose MAC address fits no host end thus belongs to
// a container that is gone.
func hostMAC(container string) string {
	m, err := net.ParseMAC(container)
	if err != nil || len(m) != 6 {
		return ""
	}
	m[0] = (m[0] | 2) ^ 4 // locally administered, and another one
	return m.String()
}

// sync is network.Sync, and makes the neighbour entries and spoof checks of other
// containers again: the kernel drops neighbours with their bridge or its MAC address.
func (a *adding) sync(ctx context.Context) (mtu int, err error) {
	changes, mtu, err := a.net.Sync(ctx)
	if err != nil || len(changes) == 0 {
		return mtu, err
	}
	live, err := network.LiveAttachments(ctx, a.Config.Name)
	if err == nil {
		_, err = restoreAntispoof(ctx, a.net, live)
	}
	return mtu, err
}

// antispoof makes the container's neighbour entries, before the container can send ARP,
// and its spoof check.
func (a *adding) antispoof(ctx context.Context, addrs []netip.Addr) error {
	if knowsMACs(a.Config) {
		if err := kernel.AddNeighbours(ctx, state.GatewayLink(a.Config), a.mac, addrs...); err != nil {
			return err
		}
	}
	switch {
	case !a.Config.ChecksSpoof(a.bridge.Datapath):
		return nil
	case a.bridge.Datapath == "netdev":
		return fmt.Errorf("%w: spoofchk true: OVS bridge %s: %s", config.ErrInvalid, a.Config.Bridge, config.NoSpoofChk)
	}
	return a.spoofCheck(a.mac, addrs).Add(ctx)
}

func (r Request) spoofCheck(mac string, addrs []netip.Addr) firewall.SpoofCheck {
	return firewall.SpoofCheck{Network: r.Config.Name, Port: r.port(), MAC: mac, Addrs: addrs}
}

// removeAntispoof removes what antispoof has made. The host's end of the pair must still
// be there: its MAC address tells the container's.
func (r Request) removeAntispoof(ctx context.Context) error {
	return removeAntispoof(ctx, r.Config, r.port())
}

// removeAntispoof removes the neighbour entries and the spoof check of the container
// behind the link port. If the link is gone, with the container's namespace, it removes
// the entries of all containers that are gone.
func removeAntispoof(ctx context.Context, c *config.Network, port string) error {
	if raw := rundir.NetworkDir(c.Name).SavedConfig(); raw != nil {
		// antispoof used the saved configuration, which may differ from DEL's.
		if was, _ := config.Parse(raw); was.Name == c.Name {
			c = was
		}
	}
	var unchecked error
	if c.ChecksSpoof(c.DatapathType) {
		unchecked = firewall.DelSpoofChecks(ctx, c.Name, port)
	}
	if !knowsMACs(c) {
		return unchecked
	}
	l, err := hostEnd(ctx, c.Name, port)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(unchecked, removeStaleNeighbours(ctx, c))
	}
	if err == nil {
		err = kernel.RemoveNeighbours(ctx, state.GatewayLink(c), func(n state.Neigh) bool { return hostMAC(n.MAC) == l.MAC })
	}
	return errors.Join(unchecked, err)
}

// removeStaleNeighbours removes the neighbour entries of containers that are gone. It
// reads the links of all networks, because several may share a Linux bridge. It reads
// the entries before the links: an ADD makes its link before its entry, so that no
// entry of an ADD in progress is taken for a stale one.
func removeStaleNeighbours(ctx context.Context, c *config.Network) error {
	dev := state.GatewayLink(c)
	before, err := kernel.Neighbours(ctx, dev)
	if err != nil || len(before) == 0 {
		return err
	}
	links, err := kernel.LinksByAliasPrefix(ctx, config.AliasBegin)
	if err != nil {
		return err
	}
	return kernel.RemoveNeighbours(ctx, dev, func(n state.Neigh) bool {
		gone := !slices.ContainsFunc(links, func(l kernel.Link) bool { return l.MAC == hostMAC(n.MAC) })
		return gone && slices.Contains(before, n)
	})
}

// antispoofNeighbours are the neighbour entries that antispoof makes for ADD's result. A
// container that an older version has attached has no entries, and none is returned. It
// is told by its host end, whose MAC address is not derived from the container's.
func antispoofNeighbours(ctx context.Context, r Request, m nodes.Topology, prev *current.Result) ([]state.Object, error) {
	if !knowsMACs(r.Config) {
		return nil, nil
	}
	dev := state.GatewayLink(r.Config)
	mac, addrs := identity(r, prev)
	var have []state.Neigh
	l, err := kernel.LinkByName(ctx, r.port())
	if err == nil && l.MAC != hostMAC(mac) {
		have, err = kernel.Neighbours(ctx, dev)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var objs []state.Object
	for _, a := range addrs {
		if l.MAC == hostMAC(mac) || slices.ContainsFunc(have, func(p state.Neigh) bool { return p.IP == a }) {
			objs = append(objs, state.Neigh{Dev: dev, IP: a, MAC: mac})
		}
	}
	return slices.DeleteFunc(objs, func(o state.Object) bool { return !ownSubnet(m, o.(state.Neigh).IP) }), nil
}

// identity are the container's MAC address and addresses in ADD's result.
func identity(r Request, prev *current.Result) (mac string, addrs []netip.Addr) {
	at := slices.IndexFunc(prev.Interfaces, func(i *current.Interface) bool { return i.Name == r.IfName && i.Sandbox != "" })
	if at < 0 {
		return "", nil
	}
	for _, ip := range prev.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok && ip.Interface != nil && *ip.Interface == at {
			addrs = append(addrs, a.Unmap())
		}
	}
	return prev.Interfaces[at].Mac, addrs
}

// checkSpoofing returns a state.Drift if the container's spoof check is missing or
// altered.
func checkSpoofing(ctx context.Context, r Request, n *network.Network, prev *current.Result) error {
	if !r.Config.ChecksSpoof(r.Config.DatapathType) {
		return nil
	}
	datapath, _, err := n.OVS.DatapathType(ctx, r.Config.Bridge)
	if err != nil || !r.Config.ChecksSpoof(datapath) {
		return err
	}
	mac, addrs := identity(r, prev)
	if l, err := kernel.LinkByName(ctx, r.port()); err == nil && l.MAC != hostMAC(mac) {
		return nil // attached by a version that made no spoof check
	}
	exists, err := r.spoofCheck(mac, addrs).Exists(ctx)
	if err != nil || exists {
		return err
	}
	return state.DriftOfTexts(fmt.Sprintf("the spoof check of %s is missing or not as ADD made it (nft list chain netdev %s %[1]s)",
		r.port(), config.FirewallTable(r.Config.Name)))
}

func ownSubnet(m nodes.Topology, a netip.Addr) bool {
	return slices.ContainsFunc(m.Self.Subnets, func(s netip.Prefix) bool { return s.Contains(a) && config.Gateway(s) != a })
}

// restoreAntispoof makes neighbour entries and spoof checks of live attachments again
// that are lost, as with a bridge that OVS has made again. It reads the addresses at the
// containers' ends. It makes no entry for an address that two containers have, and none
// for a container whose MAC address is not the one that ADD gave.
func restoreAntispoof(ctx context.Context, n *network.Network, live map[string]config.Attachment) ([]state.Change, error) {
	dev := state.GatewayLink(n.Config)
	var have []state.Neigh
	var err error
	if knowsMACs(n.Config) {
		if have, err = kernel.Neighbours(ctx, dev); err != nil {
			return nil, err
		}
	}
	unchecked, err := uncheckedPorts(ctx, n, live)
	if err != nil {
		return nil, err
	}
	var made []state.Change
	var errs []error
	for port, end := range trustedPeers(ctx, n, live, have, unchecked) {
		for _, a := range end.Addrs {
			if knowsMACs(n.Config) && !slices.ContainsFunc(have, func(p state.Neigh) bool { return p.IP == a }) {
				errs = append(errs, kernel.AddNeighbours(ctx, dev, end.MAC, a))
				made = append(made, state.Change{New: state.Neigh{Dev: dev, IP: a, MAC: end.MAC}})
			}
		}
		if slices.Contains(unchecked, port) {
			errs = append(errs, firewall.SpoofCheck{Network: n.Config.Name, Port: port, MAC: end.MAC, Addrs: end.Addrs}.Add(ctx))
		}
	}
	return made, errors.Join(errs...)
}

// uncheckedPorts are the ports of live attachments whose spoof check is lost.
func uncheckedPorts(ctx context.Context, n *network.Network, live map[string]config.Attachment) ([]string, error) {
	if !n.Config.ChecksSpoof(n.Config.DatapathType) {
		return nil, nil
	}
	datapath, _, err := n.OVS.DatapathType(ctx, n.Config.Bridge)
	if err != nil || !n.Config.ChecksSpoof(datapath) || datapath == "netdev" {
		return nil, err
	}
	have, err := firewall.SpoofChecks(ctx, n.Config.Name)
	if err != nil {
		return nil, err
	}
	var ports []string
	for port := range live {
		if !slices.Contains(have, port) {
			ports = append(ports, port)
		}
	}
	return ports, nil
}

// trustedPeers are the containers' ends of ports that lack an entry or a spoof check,
// by port, with those of their addresses that no other container has.
func trustedPeers(ctx context.Context, n *network.Network, live map[string]config.Attachment, have []state.Neigh,
	unchecked []string) map[string]kernel.VethPeer {
	known := map[string]int{}
	for _, p := range have {
		known[hostMAC(p.MAC)]++
	}
	all := len(n.Topology.Self.Subnets) // IPAM gives an address of each
	ends, claims := map[string]kernel.VethPeer{}, map[netip.Addr]int{}
	for port := range live {
		l, err := kernel.LinkByName(ctx, port)
		if err != nil || (known[l.MAC] >= all || !knowsMACs(n.Config)) && !slices.Contains(unchecked, port) {
			continue // gone in the meantime, or nothing is missing
		}
		end, err := kernel.VethPeerOf(ctx, port)
		if err != nil || hostMAC(end.MAC) != l.MAC {
			continue
		}
		end.Addrs = slices.DeleteFunc(end.Addrs, func(a netip.Addr) bool { return n.Config.IPAM.Type == "" || !ownSubnet(n.Topology, a) })
		for _, a := range end.Addrs {
			claims[a]++
		}
		ends[port] = end
	}
	for port, end := range ends {
		addrs := end.Addrs
		end.Addrs = nil
		for _, p := range have { // entries that exist are right, whatever addresses the end has
			if p.MAC == end.MAC {
				end.Addrs = append(end.Addrs, p.IP)
			}
		}
		for _, a := range addrs {
			if claims[a] == 1 && !slices.ContainsFunc(have, func(p state.Neigh) bool { return p.IP == a }) {
				end.Addrs = append(end.Addrs, a)
			}
		}
		ends[port] = end
	}
	return ends
}
