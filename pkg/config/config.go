package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// DefaultBridge is the OVS bridge of a network that names none.
const DefaultBridge = "obr0"

// DefaultOVSDB is where distributions put OVSDB's socket.
const DefaultOVSDB = "/var/run/openvswitch/db.sock"

// A Segment says how far a broadcast of a container travels.
type Segment string

const (
	// SegmentHost is one Ethernet segment a host; between hosts all is routed.
	SegmentHost Segment = "host"
	// SegmentMesh is one Ethernet segment over all hosts.
	SegmentMesh Segment = "mesh"
	// SegmentContainer is no shared segment at all: everything passes the host.
	SegmentContainer Segment = "container"
)

// A Mode says how packets get to a peer's containers.
type Mode string

const (
	// ModeTunnel routes over the tunnel.
	ModeTunnel Mode = "tunnel"
	// ModeDirect routes by way of the peer's underlay address.
	ModeDirect Mode = "direct"
	// ModeAuto is ModeDirect for peers on a connected subnet, else ModeTunnel.
	ModeAuto Mode = "auto"
)

// Tunnel types, as OVS names them. TunnelNone means routes alone.
const (
	TunnelGRE    = "gre"
	TunnelVXLAN  = "vxlan"
	TunnelGeneve = "geneve"
	TunnelNone   = "none"
	// TunnelWireGuard is no type of OVS's: its link is the kernel's.
	TunnelWireGuard = "wireguard"
)

// How many OVS ports a host's tunnels have: one a peer, or one in all.
const (
	PortsPeer = "peer"
	PortsOne  = "one"
)

// Base is what the configurations of both plugins have in common.
type Base struct {
	// CNIVersion is the version of the CNI specification the result is in.
	CNIVersion string
	// Name is the network's.
	Name string
	// Type is the plugin's.
	Type string
	// Nodes are the hosts of the network as listed inline; nil where there is
	// a NodesFile, or nothing.
	Nodes []Node
	// NodesFile is the absolute path of a file with the list, or "".
	NodesFile string
	// Node is the name of this host's entry; "" finds it by its address.
	Node string
	// PrevResult is the previous plugin's result, or the result of ADD; nil if absent.
	PrevResult json.RawMessage
	// Valid are the attachments that GC must keep. Nil means the runtime did
	// not say, and nothing may be removed; empty means that none is valid.
	Valid *[]Attachment
	// Raw is the configuration as it was read, for IPAM plugins.
	Raw []byte
}

// An Attachment is one interface of one container.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// Tunnel is how frames travel between hosts.
type Tunnel struct {
	// Type is gre, vxlan, geneve, wireguard or none.
	Type string
	// Key is the GRE key or VNI; nil means none.
	Key *uint32
	// Csum: the outer packet carries a checksum.
	Csum bool
	// Port is the UDP destination port of VXLAN, Geneve and WireGuard; 0 means the protocol's own.
	Port uint16
	// BFD watches each tunnel by bidirectional forwarding detection.
	BFD bool
	// Keepalive is after how many seconds WireGuard sends something to a peer;
	// 0 is never.
	Keepalive uint16
	// Ports is peer or one.
	Ports string
}

// IPAM is the address management that the network delegates to.
type IPAM struct {
	// Type is the IPAM plugin's name; "" means that containers get no address.
	Type string
	// DataDir is host-local's data directory; "" means its default.
	DataDir string
	// Ranged: the configuration itself says what addresses there are.
	Ranged bool
}

// Network is the configuration of ovs-gre.
type Network struct {
	Base
	// Bridge is the OVS bridge.
	Bridge string
	// AdoptBridge: the bridge exists, is not ours and stays as it is.
	AdoptBridge bool
	// Segment is how far a broadcast of a container travels.
	Segment Segment
	// Tunnel is how frames travel between hosts.
	Tunnel Tunnel
	// MTU inside the containers, in bytes; 0 means automatic.
	MTU int
	// IPMasq: what leaves the network is masqueraded.
	IPMasq bool
	// NoMasqueradeCIDRs are more destinations that are not masqueraded.
	NoMasqueradeCIDRs []netip.Prefix
	// IsDefaultGateway: the container's default route goes by the gateway.
	IsDefaultGateway bool
	// LinuxBridge is an existing Linux bridge that holds the containers and
	// the gateway address; "" means the OVS bridge does.
	LinuxBridge string
	// OVSDB is the path of OVSDB's unix socket.
	OVSDB string
	// DatapathType is system or netdev; "" means OVS's own default.
	DatapathType string
	// Timeout bounds one call's waiting for OVS.
	Timeout time.Duration
	// SpoofChk drops what a container sends as somebody else; ChecksSpoof says
	// what holds where SpoofChkSet does not.
	SpoofChk, SpoofChkSet bool
	// IPAM is the address management.
	IPAM IPAM
	// DNS is what the result hands to the runtime; where it is empty, what IPAM
	// says is.
	DNS types.DNS
	// MAC is the container's MAC address as runtimeConfig or args.cni ask for
	// it; "" means neither does.
	MAC string
}

// NoSpoofChk is why there is no spoofchk on a bridge of the userspace datapath.
const NoSpoofChk = "OVS's userspace datapath has a container's frames before the kernel can filter them: leave it out, or use datapathType system"

// Routes is the configuration of route-sync.
type Routes struct {
	Base
	// Mode is how packets get to a peer's containers.
	Mode Mode
	// Bridge is the OVS bridge whose tunnels carry routes of mode tunnel; ""
	// means the first interface of the previous result.
	Bridge string
	// Table is the routing table's number; 254 is main.
	Table int
	// Metric is the routes' metric; 0 means the kernel's own.
	Metric int
}

// Parse reads the configuration of ovs-gre. It reports every problem at once;
// each wraps ErrDecode or ErrInvalid. The configuration is returned even
// then, with its valid parts (of the nodes, those that are valid by
// themselves), because DEL must work with what it gets.
func Parse(stdin []byte) (*Network, error) {
	c := &Network{
		Bridge: DefaultBridge, Segment: SegmentHost, Tunnel: Tunnel{Type: TunnelGRE, Ports: PortsPeer},
		IsDefaultGateway: true, OVSDB: DefaultOVSDB, Timeout: 10 * time.Second,
	}
	var p problems
	if parse(&p, &c.Base, c, stdin, NetworkKeys) {
		c.check(&p)
	}
	return c, p.err()
}

// ParseRoutes reads the configuration of route-sync, in the way of Parse.
func ParseRoutes(stdin []byte) (*Routes, error) {
	c := &Routes{Mode: ModeTunnel, Table: 254}
	var p problems
	if parse(&p, &c.Base, c, stdin, RoutesKeys) {
		c.check(&p)
	}
	return c, p.err()
}

// Completed is the configuration with what it has lost: keys, also of ipam and
// tunnel, that kept has and it has not. kept is a configuration of the same
// network as it was read before; nil, or one that adds nothing, leaves c as it
// is. It is for DEL, which may get less than ADD got.
func (c *Network) Completed(kept []byte) *Network {
	var given, was map[string]json.RawMessage
	if json.Unmarshal(kept, &was) != nil || json.Unmarshal(c.Raw, &given) != nil {
		return c
	}
	if given["nodes"] != nil || given["nodesFile"] != nil {
		delete(was, "nodes")
		delete(was, "nodesFile")
	}
	full, more := completed(given, was)
	if !more {
		return c
	}
	raw, err := json.Marshal(full)
	if err != nil {
		return c
	}
	all, _ := Parse(raw)
	return all
}

// completed adds to given what it lacks of kept, two objects deep.
func completed(given, kept map[string]json.RawMessage) (full map[string]json.RawMessage, more bool) {
	for key, value := range kept {
		have, ok := given[key]
		var a, b map[string]json.RawMessage
		switch {
		case !ok:
			given[key], more = value, true
		case (key == "ipam" || key == "tunnel") && json.Unmarshal(have, &a) == nil && json.Unmarshal(value, &b) == nil && a != nil:
			if a["type"] != nil && stringOf(a["type"]) != stringOf(b["type"]) {
				continue // of another kind: keys of the one mean nothing to the other
			}
			if inner, lost := completed(a, b); lost {
				given[key], _ = json.Marshal(inner)
				more = true
			}
		}
	}
	return given, more
}

// ChecksSpoof reports whether frames that a container sends as somebody else
// are dropped at its port. The userspace datapath has them before any filter.
func (c *Network) ChecksSpoof(datapath string) bool {
	if c.SpoofChkSet {
		return c.SpoofChk
	}
	return c.Segment == SegmentContainer && datapath != "netdev"
}

// check is what must hold between keys of ovs-gre. Of a key that is wrong by
// itself it says nothing more.
func (c *Network) check(p *problems) {
	t := c.Tunnel
	if len(c.Nodes) == 0 && c.NodesFile == "" && p.noneOf("nodes", "nodesFile") {
		p.invalid("nodes", nil, "missing: list every host of the network, or name a nodesFile")
	}
	if t.Port != 0 && t.Type != TunnelVXLAN && t.Type != TunnelGeneve && t.Type != TunnelWireGuard && p.noneOf("tunnel.type") {
		p.invalid("tunnel.port", quoteInt(int(t.Port)), "only VXLAN, Geneve and WireGuard have a port, tunnel.type is "+t.Type)
	}
	c.checkWireGuard(p)
	if t.Key != nil && *t.Key > 1<<24-1 && (t.Type == TunnelVXLAN || t.Type == TunnelGeneve) {
		p.invalid("tunnel.key", quoteInt(int(*t.Key)), "a VNI has 24 bits, want at most 16777215")
	}
	if t.Type == TunnelNone && (t.Key != nil || t.Csum || t.BFD) {
		p.invalid("tunnel.type", quote(t.Type), "no tunnel: leave out tunnel.key, tunnel.csum and tunnel.bfd")
	}
	if t.Ports == PortsOne {
		c.checkOnePort(p)
	}
	if t.Type == TunnelGRE && t.Csum && c.DatapathType != "netdev" {
		// ip_tunnel_rcv in net/ipv4/ip_tunnel.c and ip6_tnl_rcv: a packet with a
		// checksum on a device that was not made for it, as OVS's is not.
		p.invalid("tunnel.csum", []byte("true"), "the kernel datapath drops GRE that has a checksum: leave it out, or use vxlan or geneve (datapathType netdev can)")
	}
	if c.SpoofChk && c.DatapathType == "netdev" {
		p.invalid("spoofchk", []byte("true"), NoSpoofChk)
	}
	if t.Type == TunnelNone && c.Segment == SegmentMesh {
		p.invalid("segment", quote(string(c.Segment)), "one segment over all hosts needs a tunnel, tunnel.type is none")
	}
	if c.LinuxBridge != "" && p.noneOf("bridge") {
		switch c.LinuxBridge {
		case c.Bridge:
			p.invalid("linuxBridge", quote(c.LinuxBridge), "the same name as bridge: the Linux bridge and the OVS bridge are two devices")
		case TransitLink(c.Bridge):
			p.invalid("linuxBridge", quote(c.LinuxBridge), "the name of the bridge that the tunnels are on")
		case WireGuardName(c.Bridge):
			p.invalid("linuxBridge", quote(c.LinuxBridge), "the name of the WireGuard link")
		}
	}
	if c.LinuxBridge != "" && c.AdoptBridge {
		p.invalid("adoptBridge", []byte("true"), "an adopted bridge is not plugged into a linuxBridge: leave out one of the two")
	}
	if c.LinuxBridge != "" && c.Segment == SegmentContainer {
		p.invalid("segment", quote(string(c.Segment)), "containers of a linuxBridge share a segment: want host or mesh")
	}
}

// checkWireGuard is what must hold between keys for WireGuard.
func (c *Network) checkWireGuard(p *problems) {
	t := c.Tunnel
	if t.Type != TunnelWireGuard {
		if t.Keepalive != 0 && p.noneOf("tunnel.type") {
			p.invalid("tunnel.keepalive", quoteInt(int(t.Keepalive)), "only WireGuard sends keepalives, tunnel.type is "+t.Type)
		}
		return
	}
	if t.Key != nil || t.Csum || t.BFD {
		p.invalid("tunnel.type", quote(t.Type), "WireGuard has none of these: leave out tunnel.key, tunnel.csum and tunnel.bfd")
	}
	if c.Segment == SegmentMesh {
		p.invalid("segment", quote(string(c.Segment)), "WireGuard carries IP packets and no Ethernet frames, tunnel.type is wireguard: want host or container")
	}
}

// checkOnePort is what one tunnel port for all peers cannot.
func (c *Network) checkOnePort(p *problems) {
	one := quote(PortsOne)
	if c.Segment == SegmentMesh {
		p.invalid("tunnel.ports", one, "a broadcast in segment mesh goes to every host, and what goes by one port goes to one host: want peer, or segment host or container")
	}
	if c.Tunnel.BFD {
		p.invalid("tunnel.ports", one, "BFD watches a port, and this one has no far end: leave out tunnel.bfd, or want peer")
	}
	if !slices.Contains([]string{TunnelGRE, TunnelVXLAN, TunnelGeneve}, c.Tunnel.Type) && p.noneOf("tunnel.type") {
		p.invalid("tunnel.ports", one, "only GRE, VXLAN and Geneve can, tunnel.type is "+c.Tunnel.Type)
	}
}

// check is what must hold between keys of route-sync.
func (c *Routes) check(p *problems) {
	if c.Mode != ModeDirect || !p.noneOf("nodes") || len(c.Nodes) == 0 || c.Nodes[0].Address.Is6() {
		return
	}
	for i, n := range c.Nodes {
		for j, s := range n.Subnets {
			if s.Addr().Is6() {
				p.invalid("nodes", nil, fmt.Sprintf("nodes[%d].subnets[%d] %s: mode direct cannot route IPv6 by way of the IPv4 address %s", i, j, s, n.Address))
			}
		}
	}
}
