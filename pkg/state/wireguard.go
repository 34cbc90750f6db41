package state

import (
	"fmt"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// WireGuardPort is the UDP port of a network that names none: the one that
// wg(8) has in its examples.
const WireGuardPort = 51820

type (
	// Guard is the nftables table of an encrypted network: it drops what would
	// pass between this host and its peers' containers by another link than
	// this one, in either direction, whether the link is there or not.
	Guard struct {
		Network string
		Link    string `says:"link"`
		// Peers are the peers' container subnets, as Masquerade has its lists.
		Peers string `says:"peers"`
		// Tunnels are the outer packets that pass between this host and Nodes only
		// where IPsec encrypts them, by protocol: "gre" or "udp" and a port; "" is none.
		Tunnels string `says:"tunnels"`
		// Nodes are the peers' underlay addresses, as Peers.
		Nodes string `says:"nodes"`
	}

	// WireGuard is the WireGuard link of a network. The private key is no part of
	// it: no object has a secret.
	WireGuard struct {
		Network, Name string
		// Port is the UDP port that it listens on.
		Port uint16 `says:"listen-port"`
		// NoKey: it has another private key than the one on this host's disk;
		// wanted is false.
		NoKey bool `fault:"it has not this host's private key"`
	}

	// WireGuardPeer is a peer of a WireGuard link: what comes from AllowedIPs by
	// its key is taken, what is for them goes there.
	WireGuardPeer struct {
		Link string
		// Key is the peer's public key in base64.
		Key string
		// Endpoint is where it is reached. One that answers from elsewhere is
		// followed there (the whitepaper's "roaming"), and counts as this.
		Endpoint netip.AddrPort `says:"endpoint"`
		// AllowedIPs are its container subnets, as Masquerade has its lists.
		AllowedIPs string `says:"allowed-ips"`
		// Keepalive in seconds; 0 is none.
		Keepalive uint16 `says:"persistent-keepalive"`
	}
)

func (g Guard) ID() ID         { return ID{KindGuard, g.Network} }
func (w WireGuard) ID() ID     { return ID{KindWireGuard, w.Name} }
func (p WireGuardPeer) ID() ID { return ID{KindWireGuardPeer, p.Link + " " + p.Key} }

func (g Guard) Noun() string     { return "guard against clear packets of network " + g.Network }
func (w WireGuard) Noun() string { return "WireGuard link " + w.Name }
func (p WireGuardPeer) Noun() string {
	return fmt.Sprintf("WireGuard peer %.8s… of %s", p.Key, p.Link) // as much as tells two apart
}

// String makes the link unless it is there; with one of another owner it fails
// later, as what follows does.
func (w WireGuard) String() string {
	return fmt.Sprintf("ip link show dev %[1]s >/dev/null 2>&1 || "+
		"{ ip link add dev %[1]s type wireguard; ip link set dev %[1]s alias %[2]s; }; "+
		"[ -e %[4]s ] || { mkdir -p %[5]s; ( umask 077; wg genkey >%[4]s ); }; wg set %[1]s listen-port %[3]d private-key %[4]s",
		w.Name, config.WireGuardAlias(w.Network), w.Port, config.KeyFile(w.Network), config.KeyDir)
}

func (p WireGuardPeer) String() string {
	s := fmt.Sprintf("wg set %s peer %s endpoint %s allowed-ips %s", p.Link, p.Key, p.Endpoint, p.AllowedIPs)
	if p.Keepalive != 0 {
		s += fmt.Sprintf(" persistent-keepalive %d", p.Keepalive)
	}
	return s
}

// Encrypted reports whether the network's packets go by WireGuard.
func Encrypted(c *config.Network) bool { return c.Tunnel.Type == config.TunnelWireGuard }

// Unkeyed are the peers whose public keys are not known: nothing goes there and
// nothing comes from there.
func Unkeyed(m nodes.Topology) []config.Node {
	return slices.DeleteFunc(slices.Clone(m.Peers), func(n config.Node) bool { return n.Key != "" })
}

// wireGuard is what an encrypted network has in the place of tunnels: the guard,
// the link, and a peer for each node whose key is known. Of the link's address
// and its loose reverse path filter, tunnelBridge says why.
func wireGuard(c *config.Network, m nodes.Topology, mtu int) []Object {
	dev, port := config.WireGuardName(c.Bridge), c.Tunnel.Port
	if port == 0 {
		port = WireGuardPort
	}
	objs := append(forwarding(m, dev),
		guard(c, m),
		WireGuard{Network: c.Name, Name: dev, Port: port},
		Link{Name: dev, Up: true, MTU: mtu},
		Sysctl{"net/ipv4/conf/" + dev + "/rp_filter", "2"},
	)
	if gw := primary(m.Self); gw.Is4() {
		objs = append(objs, Addr{Dev: dev, Prefix: netip.PrefixFrom(gw, 32)})
	}
	if has6(m.Self) {
		objs = append(objs, Sysctl{"net/ipv6/conf/" + dev + "/addr_gen_mode", "1"})
	}
	for _, p := range m.Peers {
		if p.Key != "" {
			objs = append(objs, WireGuardPeer{Link: dev, Key: p.Key, Endpoint: netip.AddrPortFrom(p.Address, port),
				AllowedIPs: cidrList(p.Subnets), Keepalive: c.Tunnel.Keepalive})
		}
	}
	return objs
}
