package attach

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"

	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/mesh"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/spec"
	"ovs-gre-cni/pkg/state"
)

// deafen makes the container's interface deaf, before it is up, to what others
// on its segment say about routing, where IPAM has said all there is to say.
// Outside segment host the gateway itself leads by the link that a packet came
// from, and then tells of a shorter way that there is not.
func (a *adding) deafen() error {
	managed := a.Config.IPAM.Type != ""
	if !managed && a.Config.Segment == spec.SegmentHost {
		return nil
	}
	return a.ns.Deafen(a.IfName, managed)
}

// pins reports whether the host knows its containers' MAC addresses for good,
// whatever anybody says by ARP or neighbour discovery. In a mesh a neighbour may
// be anywhere.
func pins(c *spec.Network) bool { return c.Segment != spec.SegmentMesh && c.IPAM.Type != "" }

// hostMAC is the MAC address of the host's end of a container's pair. It follows
// from the container's, so that whoever sees the one end knows the other: a
// neighbour entry that fits no end here is of a container that is gone.
func hostMAC(container string) string {
	m, err := net.ParseMAC(container)
	if err != nil || len(m) != 6 {
		return ""
	}
	m[0] = (m[0] | 2) ^ 4 // locally administered, and another one
	return m.String()
}

// guard tells the host who the container is, before the container can say it.
func (a *adding) guard(ctx context.Context, addrs []netip.Addr) error {
	if !pins(a.Config) || len(addrs) == 0 {
		return nil
	}
	a.undo.add(a.unguard)
	return kernel.Pin(ctx, state.GatewayLink(a.Config), a.mac, addrs...)
}

// unguard takes back what guard did, by the pair's end that is still here.
func (r Request) unguard(ctx context.Context) error { return unguard(ctx, r.Config, r.port()) }

// unguard forgets the neighbours of the container behind the link port. Where
// that is gone, with the container's namespace, it forgets those of all
// containers that are gone.
func unguard(ctx context.Context, c *spec.Network, port string) error {
	if !pins(c) {
		return nil
	}
	l, err := kernel.LinkByName(ctx, port)
	if errors.Is(err, fs.ErrNotExist) {
		return unguardGone(ctx, c)
	}
	if err != nil {
		return err
	}
	return kernel.Unpin(ctx, state.GatewayLink(c), func(n state.Neigh) bool { return hostMAC(n.MAC) == l.MAC })
}

// unguardGone looks at the links of all networks: several may share a Linux
// bridge. An ADD has named its link ours before it makes a neighbour entry.
func unguardGone(ctx context.Context, c *spec.Network) error {
	dev := state.GatewayLink(c)
	if list, err := kernel.Pinned(ctx, dev); err != nil || len(list) == 0 {
		return err
	}
	links, err := kernel.LinksByAliasPrefix(ctx, AliasPrefix)
	if err != nil {
		return err
	}
	return kernel.Unpin(ctx, dev, func(n state.Neigh) bool {
		return !slices.ContainsFunc(links, func(l kernel.Link) bool { return l.MAC == hostMAC(n.MAC) })
	})
}

// guards are the objects that guard has made of what ADD's result says. A
// container of a version before has none; that its MAC address is another than
// ADD gave is told by an entry.
func guards(ctx context.Context, r Request, m mesh.Mesh, prev *current.Result) ([]state.Object, error) {
	if !pins(r.Config) {
		return nil, nil
	}
	dev := state.GatewayLink(r.Config)
	var have []state.Neigh
	l, err := kernel.LinkByName(ctx, r.port())
	if err == nil {
		have, err = kernel.Pinned(ctx, dev)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var objs []state.Object
	for _, ip := range prev.IPs {
		if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(prev.Interfaces) {
			continue
		}
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if at := prev.Interfaces[*ip.Interface]; ok && at.Name == r.IfName && at.Sandbox != "" && ownSubnet(m, a.Unmap()) {
			n := state.Neigh{Dev: dev, IP: a.Unmap(), MAC: at.Mac}
			if l.MAC == hostMAC(at.Mac) || slices.ContainsFunc(have, func(p state.Neigh) bool { return p.IP == n.IP }) {
				objs = append(objs, n)
			}
		}
	}
	return objs, nil
}

func ownSubnet(m mesh.Mesh, a netip.Addr) bool {
	return slices.ContainsFunc(m.Self.Subnets, func(s netip.Prefix) bool { return s.Contains(a) && spec.Gateway(s) != a })
}

// reguard makes the neighbour entries of live attachments anew that are lost,
// as with a bridge that OVS made again. It asks the containers' own ends: for an
// address that two have, or by an end whose MAC address is not the one that ADD
// gave, it vouches for nobody.
func reguard(ctx context.Context, n *network.Network, live map[string]spec.Attachment) ([]state.Change, error) {
	if !pins(n.Config) {
		return nil, nil
	}
	dev := state.GatewayLink(n.Config)
	have, err := kernel.Pinned(ctx, dev)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, p := range have {
		known[hostMAC(p.MAC)] = true
	}
	claims := map[netip.Addr][]string{}
	for port := range live {
		l, err := kernel.LinkByName(ctx, port)
		if err != nil || known[l.MAC] {
			continue // or gone meanwhile
		}
		end, err := kernel.FarEndOf(ctx, port)
		if err != nil || hostMAC(end.MAC) != l.MAC {
			continue
		}
		for _, a := range end.Addrs {
			if ownSubnet(n.Mesh, a) {
				claims[a] = append(claims[a], end.MAC)
			}
		}
	}
	var made []state.Change
	for a, macs := range claims {
		if len(macs) != 1 || slices.ContainsFunc(have, func(p state.Neigh) bool { return p.IP == a }) {
			continue
		}
		if err := kernel.Pin(ctx, dev, macs[0], a); err != nil {
			return made, err
		}
		made = append(made, state.Change{New: state.Neigh{Dev: dev, IP: a, MAC: macs[0]}})
	}
	return made, nil
}
