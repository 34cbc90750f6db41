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
	// SegmentHost: the containers of a host share one Ethernet segment; between
	// hosts, packets are routed.
	SegmentHost Segment = "host"
	// SegmentMesh: the containers of all hosts share one Ethernet segment.
	SegmentMesh Segment = "mesh"
	// SegmentContainer: containers share no segment; the host routes every packet.
	SegmentContainer Segment = "container"
)

// A Mode says how packets get to a peer's containers.
type Mode string

const (
	// ModeTunnel: packets go through the tunnel to the peer.
	ModeTunnel Mode = "tunnel"
	// ModeDirect: the next hop is the peer's underlay address.
	ModeDirect Mode = "direct"
	// ModeAuto is ModeDirect for peers on a connected subnet, else ModeTunnel.
	ModeAuto Mode = "auto"
)

// Tunnel types, as OVS names them; with TunnelNone there are no tunnels.
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

// Base holds the keys that ovs-gre and route-sync share.
type Base struct {
	// CNIVersion is the version of the CNI specification that the result must have.
	CNIVersion string
	// Name is the network's name.
	Name string
	// Type is the plugin's name.
	Type string
	// Nodes are the hosts of the network, by the key nodes; nil where the key is
	// absent.
	Nodes []Node
	// Fan stands for the nodes where the key nodes is no list; zero where it is one.
	Fan Fan
	// NodesFile is the absolute path of a file that lists the hosts in place of
	// Nodes; "" means that there is none.
	NodesFile string
	// Node is the name of this host's entry; "" means the entry whose address this
	// host has.
	Node string
	// PrevResult is the result of the previous plugin or, for CHECK and DEL, of
	// ADD; nil if absent.
	PrevResult json.RawMessage
	// Valid lists the attachments that GC must keep. Nil means that the runtime
	// gave no list, so that nothing may be removed; an empty list means that no
	// attachment is valid.
	Valid *[]Attachment
	// Raw is the configuration as it was read, which delegated IPAM plugins get.
	Raw []byte
}

// HasNodes reports whether the configuration says who the hosts are.
func (b *Base) HasNodes() bool { return len(b.Nodes) > 0 || b.NodesFile != "" || !b.Fan.IsZero() }

// An Attachment is one interface of one container.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// Tunnel holds the keys of the tunnels between hosts.
type Tunnel struct {
	// Type is gre, vxlan, geneve, wireguard or none.
	Type string
	// Key is the GRE key or VNI; nil means no key.
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
	// Options are further options of OVS's tunnel interfaces, sorted by name.
	Options []Option
}

// IPAM holds the keys of the delegated IPAM plugin that this package needs.
type IPAM struct {
	// Type is the IPAM plugin's name; "" means that containers get no address.
	Type string
	// DataDir is host-local's data directory; "" means its default.
	DataDir string
	// Ranged: the configuration has ranges or a subnet of its own; host-local
	// without them gets this host's container subnets.
	Ranged bool
}

// Network is the configuration of ovs-gre.
type Network struct {
	Base
	// Bridge is the name of the containers' OVS bridge.
	Bridge string
	// AdoptBridge: the bridge exists and belongs to somebody else; it is used and
	// never changed.
	AdoptBridge bool
	// Segment is how far a broadcast of a container travels.
	Segment Segment
	// Tunnel describes the tunnels to the other hosts.
	Tunnel Tunnel
	// MTU is the MTU of containers' links in bytes; 0 means the largest that fits
	// into the tunnels.
	MTU int
	// IPMasq: packets from containers to destinations outside the network are
	// masqueraded.
	IPMasq bool
	// NoMasqueradeCIDRs are destinations outside the network that are not
	// masqueraded either.
	NoMasqueradeCIDRs []netip.Prefix
	// IsDefaultGateway: containers get a default route by the gateway.
	IsDefaultGateway bool
	// LinuxBridge is an existing Linux bridge with the containers' links as ports
	// and the gateway address; "" means that the OVS bridge has these.
	LinuxBridge string
	// OVSDB is the path of OVSDB's unix socket.
	OVSDB string
	// DatapathType is system or netdev; "" means OVS's own default.
	DatapathType string
	// Timeout is how long one call waits for OVS at most.
	Timeout time.Duration
	// SpoofChk: packets of a container whose source is not its own are dropped. It
	// is the key's value, and SpoofChkSet whether the key is given; ChecksSpoof
	// has the default.
	SpoofChk, SpoofChkSet bool
	// IPAM describes the delegated IPAM plugin.
	IPAM IPAM
	// DNS is the dns of the result; where it is empty, the result has the IPAM
	// plugin's.
	DNS types.DNS
	// MAC is the MAC address that runtimeConfig or args.cni request for the
	// container's link; "" means none.
	MAC string
}

// NoSpoofChk is the reason, for messages, why spoofchk cannot be had on the userspace
// datapath.
const NoSpoofChk = "OVS's userspace datapath has a container's frames before the kernel can filter them: " +
	"leave it out, or use datapathType system"

// Routes is the configuration of route-sync.
type Routes struct {
	Base
	// Mode chooses the next hop of routes to a peer's containers.
	Mode Mode
	// Bridge is the OVS bridge of the network whose tunnels the routes of
	// ModeTunnel use; "" means the first interface of the previous result.
	Bridge string
	// Table is the routing table's number; 254 is main.
	Table int
	// Metric is the routes' metric; 0 means the kernel's own.
	Metric int
}

// Parse reads the configuration of ovs-gre. The error joins all problems; each wraps
// ErrDecode or ErrInvalid. The configuration is returned with an error, too: it then
// holds the valid keys, and of nodes the valid entries, because DEL must do what it
// can with a configuration that has become invalid.
func Parse(stdin []byte) (*Network, error) {
	c := &Network{
		Bridge: DefaultBridge, Segment: SegmentHost, Tunnel: Tunnel{Type: TunnelGRE},
		IsDefaultGateway: true, OVSDB: DefaultOVSDB, Timeout: 10 * time.Second,
	}
	var p problems
	if parse(&p, &c.Base, c, stdin, NetworkKeys) {
		c.check(&p)
	}
	switch {
	case !c.Fan.IsZero():
		c.Tunnel.Ports = PortsOne
	case c.Tunnel.Ports == "":
		c.Tunnel.Ports = PortsPeer
	}
	return c, p.err()
}

// ParseRoutes reads the configuration of route-sync as Parse reads that of ovs-gre.
func ParseRoutes(stdin []byte) (*Routes, error) {
	c := &Routes{Mode: ModeTunnel, Table: 254}
	var p problems
	if parse(&p, &c.Base, c, stdin, RoutesKeys) {
		c.check(&p)
	}
	return c, p.err()
}

// PersistentFields are the keys of a plugin's configuration that are not for a single
// call; nil if raw is not a JSON object.
func PersistentFields(raw []byte) map[string]json.RawMessage {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return nil
	}
	for _, k := range []string{"prevResult", "runtimeConfig", "args", "cni.dev/valid-attachments", "cni.dev/attachments"} {
		delete(fields, k)
	}
	return fields
}

// Completed returns the configuration with the keys added that an earlier
// configuration of the network has and c lacks, also inside ipam and tunnel. It
// returns c itself where there are none, or earlier is nil. It is for DEL, whose
// configuration may lack keys that ADD had (multus).
func (c *Network) Completed(earlier []byte) *Network {
	var now, old map[string]json.RawMessage
	if json.Unmarshal(earlier, &old) != nil || json.Unmarshal(c.Raw, &now) != nil {
		return c
	}
	if now["nodes"] != nil || now["nodesFile"] != nil {
		delete(old, "nodes")
		delete(old, "nodesFile")
	}
	full, more := completed(now, old)
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

// completed adds to now the keys that only old has, also inside the objects ipam
// and tunnel, and reports whether there were any.
func completed(now, old map[string]json.RawMessage) (full map[string]json.RawMessage, more bool) {
	for key, value := range old {
		have, ok := now[key]
		var a, b map[string]json.RawMessage
		switch {
		case !ok:
			now[key], more = value, true
		case (key == "ipam" || key == "tunnel") && json.Unmarshal(have, &a) == nil && json.Unmarshal(value, &b) == nil && a != nil:
			if a["type"] != nil && stringOf(a["type"]) != stringOf(b["type"]) {
				continue // of another kind: keys of the one mean nothing to the other
			}
			if inner, lost := completed(a, b); lost {
				now[key], _ = json.Marshal(inner)
				more = true
			}
		}
	}
	return now, more
}

// ChecksSpoof reports whether packets of a container whose source is not its own are
// dropped at its port, on a bridge of this datapath_type. By default they are in
// SegmentContainer, except on the userspace datapath, which takes frames before any
// filter of the kernel sees them.
func (c *Network) ChecksSpoof(datapath string) bool {
	if c.SpoofChkSet {
		return c.SpoofChk
	}
	return c.Segment == SegmentContainer && datapath != "netdev"
}

// check checks the keys of ovs-gre against each other. It skips keys that already
// have a problem of their own.
func (c *Network) check(p *problems) {
	t := c.Tunnel
	if !c.HasNodes() && p.noneOf("nodes", "nodesFile") {
		p.invalid("nodes", nil, "missing: list every host of the network, or name a nodesFile")
	}
	if t.Port != 0 && t.Type != TunnelVXLAN && t.Type != TunnelGeneve && t.Type != TunnelWireGuard && p.noneOf("tunnel.type") {
		p.invalid("tunnel.port", quoteInt(int(t.Port)), "only VXLAN, Geneve and WireGuard have a port, tunnel.type is "+t.Type)
	}
	c.checkWireGuard(p)
	c.checkOptions(p)
	if t.Key != nil && *t.Key > 1<<24-1 && (t.Type == TunnelVXLAN || t.Type == TunnelGeneve) {
		p.invalid("tunnel.key", quoteInt(int(*t.Key)), "a VNI has 24 bits, want at most 16777215")
	}
	if t.Type == TunnelNone && (t.Key != nil || t.Csum || t.BFD) {
		p.invalid("tunnel.type", quote(t.Type), "no tunnel: leave out tunnel.key, tunnel.csum and tunnel.bfd")
	}
	if !c.Fan.IsZero() {
		c.checkFan(p)
	} else if t.Ports == PortsOne {
		c.checkOnePort(p)
	}
	if t.Type == TunnelGRE && t.Csum && c.DatapathType != "netdev" {
		// ip_tunnel_rcv in net/ipv4/ip_tunnel.c and ip6_tnl_rcv: a packet with a
		// checksum on a device that was not made for it, as OVS's is not.
		p.invalid("tunnel.csum", []byte("true"), "the kernel datapath drops GRE that has a checksum: "+
			"leave it out, or use vxlan or geneve (datapathType netdev can)")
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
		p.invalid("segment", quote(string(c.Segment)), "WireGuard carries IP packets and no Ethernet frames, "+
			"tunnel.type is wireguard: want host or container")
	}
}

// checkOnePort is what one tunnel port for all peers cannot.
func (c *Network) checkOnePort(p *problems) {
	one := quote(PortsOne)
	if c.Segment == SegmentMesh {
		p.invalid("tunnel.ports", one, "a broadcast in segment mesh goes to every host, "+
			"and what goes by one port goes to one host: want peer, or segment host or container")
	}
	if c.Tunnel.BFD {
		p.invalid("tunnel.ports", one, "BFD watches a port, and this one has no far end: leave out tunnel.bfd, or want peer")
	}
	if !slices.Contains([]string{TunnelGRE, TunnelVXLAN, TunnelGeneve}, c.Tunnel.Type) && p.noneOf("tunnel.type") {
		p.invalid("tunnel.ports", one, "only GRE, VXLAN and Geneve can, tunnel.type is "+c.Tunnel.Type)
	}
}

// checkFan is what a network without a list of nodes cannot.
func (c *Network) checkFan(p *problems) {
	c.checkFanNode(p)
	if c.Segment == SegmentMesh {
		p.invalid("segment", quote(string(c.Segment)), "a broadcast in segment mesh goes to every host, "+
			"and nodes lists none: want host or container")
	}
	if !slices.Contains([]string{TunnelGRE, TunnelVXLAN, TunnelGeneve}, c.Tunnel.Type) && p.noneOf("tunnel.type") {
		p.invalid("tunnel.type", quote(c.Tunnel.Type), "nodes lists no hosts: want gre, vxlan or geneve, by which OVS finds the host of a packet")
	}
	if c.Tunnel.Ports == PortsPeer {
		p.invalid("tunnel.ports", quote(PortsPeer), "nodes lists no peers to make ports to: leave it out")
	}
	if c.Tunnel.BFD {
		p.invalid("tunnel.bfd", []byte("true"), "BFD watches a port to one peer, and nodes lists none: leave it out")
	}
	if ipsec := c.Tunnel.IPsec(); ipsec != "" {
		p.invalid("tunnel.options."+ipsec, nil, "IPsec is between two hosts, and nodes lists no other: leave it out")
	}
}

// checkFanNode refuses a name of this host that is no address of the fan.
func (b *Base) checkFanNode(p *problems) {
	if b.Node == "" {
		return
	}
	if a, err := netip.ParseAddr(b.Node); err != nil || !b.Fan.Underlay.Contains(a) {
		p.invalid("node", quote(b.Node), "nodes is no list: want this host's address in "+b.Fan.Underlay.String())
	}
}

// CheckFan refuses modes that need to know a peer before a packet for it comes. The
// error wraps ErrInvalid.
func (c *Routes) CheckFan() error {
	if c.Mode == ModeTunnel {
		return nil
	}
	return &Problem{Key: "mode", Value: string(quote(string(c.Mode))),
		Reason: "nodes lists no peers, whose addresses would be the next hops: leave it out"}
}

// check is what must hold between keys of route-sync.
func (c *Routes) check(p *problems) {
	if !c.Fan.IsZero() {
		c.checkFanNode(p)
		if err := c.CheckFan(); err != nil {
			*p = append(*p, err)
		}
		return
	}
	if c.Mode != ModeDirect || !p.noneOf("nodes") || len(c.Nodes) == 0 || c.Nodes[0].Address.Is6() {
		return
	}
	for i, n := range c.Nodes {
		for j, s := range n.Subnets {
			if s.Addr().Is6() {
				p.invalid("nodes", nil, fmt.Sprintf("nodes[%d].subnets[%d] %s: mode direct cannot route IPv6 by way of the IPv4 address %s",
					i, j, s, n.Address))
			}
		}
	}
}
