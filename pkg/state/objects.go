package state

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"ovs-gre-cni/pkg/config"
)

// RouteProtocol is the protocol number of our routes and addresses (rtm_protocol
// of rtnetlink(7), IFA_PROTO): "ip route show proto 121" lists them. It is
// free in iproute2's rt_protos.
const RouteProtocol = 121

// Owner is the external_ids key whose value is the network that an OVS row belongs to.
const Owner = "ovs-gre.network"

// FailStandalone is the fail_mode of the networks' bridges: they are learning switches
// (ovs-vswitchd.conf.db(5)).
const FailStandalone = "standalone"

type (
	// Bridge is an OVS bridge with its LOCAL port, which is an access port without a
	// VLAN.
	Bridge struct {
		Network, Name string
		// DatapathType is the column datapath_type; "" means OVS's default.
		DatapathType string `says:"datapath_type"`
		// FailMode is the column's value; wanted is FailStandalone, or FailSecure
		// where there are Flows.
		FailMode string `says:"fail_mode"`
		// HWAddr is the MAC address of the LOCAL port.
		HWAddr string `says:"hwaddr"`
		// MTU is the MTU of the LOCAL port in bytes.
		MTU int `says:"mtu_request"`
		// MACTable is the number of MAC addresses that the bridge can learn
		// (mac-table-size of ovs-vswitchd.conf.db(5)); 0 leaves it as it is, by
		// default 8192.
		MACTable int `says:"mac-table-size"`
		// Adopted: the bridge is a foreign one that must exist; its attributes are
		// not looked at.
		Adopted bool
		// PortOf is the bridge that has an internal port with the name of the
		// tunnel bridge, as earlier versions made it; "" is wanted.
		PortOf string `fault:"it is a port of "`
		// Controller: the bridge has an OpenFlow controller; false is wanted.
		Controller bool `fault:"it has a controller"`
		// SpanningTree: stp_enable or rstp_enable is set, so that new ports forward
		// nothing for a while; false is wanted.
		SpanningTree bool `fault:"it takes part in a spanning tree"`
		// Flows describes the OpenFlow table where it differs from the single flow
		// of a learning switch; "" is wanted.
		Flows string `fault:"its flows: "`
		// Error is OVS's error about the LOCAL port; "" is wanted.
		Error string `fault:""`
	}

	// Tunnel is an OVS tunnel port to one peer, or to all, a protected access port
	// of no VLAN.
	Tunnel struct {
		Network, Name string
		Bridge        string `says:"bridge"`
		// Type as OVS has it: gre, ip6gre, vxlan, geneve.
		Type string `says:"type"`
		// Remote is the peer's address; the zero Addr leaves it to flows.
		Remote netip.Addr `says:"remote_ip"`
		// Local is the outer source address; the zero Addr means that the kernel
		// chooses.
		Local netip.Addr `says:"local_ip"`
		// Key is the GRE key or VNI in decimal; "" means none.
		Key  string `says:"key"`
		Csum bool   `says:"csum"`
		// DstPort is the UDP port; 0 means the protocol's default.
		DstPort uint16 `says:"dst_port"`
		BFD     bool   `says:"bfd"`
		// OFPort is the port's OpenFlow number; 0 leaves it to OVS.
		OFPort int `says:"ofport_request"`
		// Options are further options, "name=value" in a line each, by name. Of one
		// that is observed and has no value wanted here there is the name alone: its
		// value may be a secret.
		Options string `says:"options"`
		// Secrets are the further options whose values are in files, "name path" in a
		// line each, by name. Observe repeats what is wanted, and says by Error where
		// the port has another value: no object has a secret.
		Secrets string
		// Peer is the name of the node at the other end; "" is every peer.
		Peer string `says:"peer"`
		// Error is what OVS says against the port; wanted is "".
		Error string `fault:""`
	}

	// Port is the OVS port of one container.
	Port struct {
		Network, Name string
		Bridge        string `says:"bridge"`
		ContainerID   string `says:"container-id"`
		IfName        string `says:"ifname"`
		// Protected ports exchange no frames with each other.
		Protected bool `says:"protected"`
		// Error is what OVS says against the port; wanted is "".
		Error string `fault:""`
	}

	// FDB is a static entry of an OVS bridge's MAC address table, for frames without
	// a VLAN tag. It does not age, and frames from its MAC address on another port
	// do not move it. It is lost with its port, and when ovs-vswitchd ends.
	FDB struct {
		Network, Bridge string
		Port            string `says:"port"`
		MAC             string
	}

	// Sysctl is a kernel parameter. Its deletion does nothing.
	Sysctl struct {
		// Key is the path below /proc/sys: link names may contain dots.
		Key   string
		Value string `says:"value"`
	}

	// Link is an existing link with the attributes that it should have. It is never
	// made or deleted here: OVS or somebody else does.
	Link struct {
		Name string
		Up   bool `fault:"it is down"`
		// MTU is in bytes; 0 leaves it as it is.
		MTU int `says:"mtu"`
		// MaxMTU is the largest MTU allowed; a link with a smaller one keeps it. 0
		// means no limit.
		MaxMTU int `says:"largest mtu"`
		// MAC has colons; "" leaves it as it is.
		MAC string `says:"address"`
		// Master is the Linux bridge that the link is a port of; "" leaves it as it
		// is.
		Master string `says:"master"`
	}

	// Addr is an address of a link.
	Addr struct {
		Dev    string
		Prefix netip.Prefix
	}

	// Neigh is a permanent neighbour entry.
	Neigh struct {
		Dev string
		IP  netip.Addr
		// MAC is the neighbour's MAC address. "" means that the kernel resolves it,
		// and probes it again and again without traffic (NTF_EXT_MANAGED).
		MAC string `says:"lladdr"`
	}

	// Route is a route to a peer's subnet.
	Route struct {
		Dst netip.Prefix
		// Via is the next hop; the zero Addr means none: Dst is on the link.
		Via netip.Addr `says:"via"`
		// Dev is the link; "" means the link by which Via is reached.
		Dev string `says:"dev"`
		// Onlink: Via is on Dev although no address of Dev has its subnet.
		Onlink bool `says:"onlink"`
		// Src is the source address of this host's own packets: its address in the
		// network.
		Src netip.Addr `says:"src"`
		// Table is the routing table's number.
		Table int
		// Metric is the route's metric; 0 means the kernel's default.
		Metric int
	}

	// Masquerade is the nftables table of a network.
	Masquerade struct {
		Network string
		// Packets from Sources to destinations outside Excluded are masqueraded.
		// Both are sorted lists of CIDRs, none inside another, joined by commas.
		Sources  string `says:"sources"`
		Excluded string `says:"excluded"`
	}

	// Forward accepts packets of one IP family that this host forwards from one link
	// to another, between these addresses, where a rule or policy would drop them.
	Forward struct {
		Network string
		// Routes: route-sync makes it; false means ovs-gre.
		Routes bool
		// In and Out are the links; "" means any.
		In, Out string
		// From and To are lists of CIDRs as in Masquerade; "" means any address. At
		// least one is not empty, and gives the family.
		From, To string
		// Answers: only packets of established connections, and of connections that
		// DNAT has directed to To.
		Answers bool
	}
)

func (b Bridge) ID() ID { return ID{KindBridge, b.Name} }
func (t Tunnel) ID() ID { return ID{KindTunnel, t.Name} }
func (p Port) ID() ID   { return ID{KindPort, p.Name} }
func (f FDB) ID() ID    { return ID{KindFDB, f.Bridge + " " + f.MAC} }
func (s Sysctl) ID() ID { return ID{KindSysctl, s.Key} }
func (l Link) ID() ID   { return ID{KindLink, l.Name} }
func (a Addr) ID() ID   { return ID{KindAddr, a.Dev + " " + a.Prefix.String()} }
func (n Neigh) ID() ID  { return ID{KindNeigh, n.Dev + " " + n.IP.String()} }
func (r Route) ID() ID {
	return ID{KindRoute, r.Dst.String() + " table " + strconv.Itoa(r.Table) + " metric " + strconv.Itoa(r.Metric)}
}
func (m Masquerade) ID() ID { return ID{KindMasquerade, m.Network} }
func (f Forward) ID() ID    { return ID{KindForward, f.comment() + " " + f.packets()} }

func (b Bridge) Noun() string { return "OVS bridge " + b.Name }
func (t Tunnel) Noun() string {
	if !t.Remote.IsValid() {
		return "tunnel " + t.Name + " to all peers"
	}
	return fmt.Sprintf("tunnel %s to %s (%s)", t.Name, t.Peer, t.Remote)
}
func (p Port) Noun() string       { return "OVS port " + p.Name }
func (f FDB) Noun() string        { return fmt.Sprintf("FDB entry %s of %s", f.MAC, f.Bridge) }
func (s Sysctl) Noun() string     { return "sysctl " + s.Key }
func (l Link) Noun() string       { return "link " + l.Name }
func (a Addr) Noun() string       { return fmt.Sprintf("address %s of %s", a.Prefix, a.Dev) }
func (n Neigh) Noun() string      { return fmt.Sprintf("neighbour %s on %s", n.IP, n.Dev) }
func (r Route) Noun() string      { return "route " + r.Dst.String() }
func (m Masquerade) Noun() string { return "masquerade of network " + m.Network }
func (f Forward) Noun() string    { return "forward accept of " + f.packets() }

func (b Bridge) String() string {
	if b.Adopted {
		return "ovs-vsctl br-exists " + b.Name
	}
	var datapath string
	if b.DatapathType != "" {
		datapath = " datapath_type=" + b.DatapathType
	}
	var failMode string
	if b.FailMode != "" {
		failMode = " fail_mode=" + b.FailMode
	}
	if b.PortOf != "" {
		return fmt.Sprintf("ovs-vsctl --may-exist add-port %s %s -- set interface %[2]s type=internal", b.PortOf, b.Name)
	}
	if b.MACTable != 0 {
		failMode += fmt.Sprintf(" other_config:mac-table-size=%d", b.MACTable)
	}
	return fmt.Sprintf("ovs-vsctl --may-exist add-br %[1]s -- set bridge %[1]s%[2]s%[3]s other_config:hwaddr=%[4]s "+
		"external_ids:%[5]s=%[6]s external_ids:ovs-gre.role=bridge "+
		"-- set port %[1]s tag=0 vlan_mode=access -- set interface %[1]s mtu_request=%[7]d",
		b.Name, datapath, failMode, ovsString(b.HWAddr), Owner, b.Network, b.MTU) + complaint(b.complaints())
}

// complaints returns everything that keeps the bridge from being a learning switch.
func (b Bridge) complaints() string {
	var list []string
	if b.Controller {
		list = append(list, "it has a controller")
	}
	if b.SpanningTree {
		list = append(list, "it takes part in a spanning tree")
	}
	if b.Flows != "" {
		list = append(list, "its flows: "+b.Flows)
	}
	if b.Error != "" {
		list = append(list, b.Error)
	}
	return strings.Join(list, "; ")
}

func (t Tunnel) String() string {
	var b strings.Builder
	remote := "flow"
	if t.Remote.IsValid() {
		remote = ovsString(t.Remote.String())
	}
	fmt.Fprintf(&b, "ovs-vsctl --may-exist add-port %[1]s %[2]s -- set port %[2]s tag=0 vlan_mode=access protected=true "+
		"external_ids:%[3]s=%[4]s external_ids:ovs-gre.role=tunnel -- set interface %[2]s type=%[5]s options:remote_ip=%[6]s",
		t.Bridge, t.Name, Owner, t.Network, t.Type, remote)
	if t.Local.IsValid() {
		fmt.Fprintf(&b, " options:local_ip=%s", ovsString(t.Local.String()))
	}
	if t.Key != "" {
		fmt.Fprintf(&b, " options:key=%s", ovsString(t.Key))
	}
	if t.Csum {
		b.WriteString(" options:csum=true")
	}
	if t.DstPort != 0 {
		fmt.Fprintf(&b, " options:dst_port=%d", t.DstPort)
	}
	t.writeOptions(&b)
	if t.BFD {
		b.WriteString(" bfd:enable=true")
	}
	if t.OFPort != 0 {
		fmt.Fprintf(&b, " ofport_request=%d", t.OFPort)
	}
	fmt.Fprintf(&b, " external_ids:%s=%s external_ids:ovs-gre.role=tunnel", Owner, t.Network)
	if t.Peer != "" {
		fmt.Fprintf(&b, " external_ids:ovs-gre.peer=%s", ovsString(t.Peer))
	}
	return b.String() + complaint(t.Error)
}

func (p Port) String() string {
	return fmt.Sprintf("ovs-vsctl --may-exist add-port %[1]s %[2]s -- set port %[2]s tag=0 vlan_mode=access protected=%[3]t "+
		"external_ids:%[4]s=%[5]s external_ids:ovs-gre.role=container "+
		"-- set interface %[2]s external_ids:%[4]s=%[5]s external_ids:ovs-gre.role=container "+
		"external_ids:ovs-gre.container-id=%[6]s external_ids:ovs-gre.ifname=%[7]s",
		p.Bridge, p.Name, p.Protected, Owner, p.Network, ovsString(p.ContainerID), ovsString(p.IfName)) + complaint(p.Error)
}

func (f FDB) String() string {
	return fmt.Sprintf("ovs-appctl fdb/add %s %s 0 %s", f.Bridge, f.Port, f.MAC)
}

func (s Sysctl) String() string { return fmt.Sprintf("sysctl -qw %s=%s", s.Key, s.Value) }

func (l Link) String() string {
	s := "ip link set " + l.Name
	if l.Up {
		s += " up"
	} else {
		s += " down"
	}
	if l.MTU != 0 {
		s += " mtu " + strconv.Itoa(l.MTU)
	}
	if l.MaxMTU != 0 {
		s += " mtu " + strconv.Itoa(l.MaxMTU)
	}
	if l.MAC != "" {
		s += " address " + l.MAC
	}
	if l.Master != "" {
		s += " master " + l.Master
	}
	return s
}

func (a Addr) String() string {
	s := fmt.Sprintf("ip addr replace %s dev %s", a.Prefix, a.Dev)
	if a.Prefix.Addr().Is6() {
		s += " nodad"
	}
	return s
}

func (n Neigh) String() string {
	if n.MAC == "" {
		return fmt.Sprintf("ip neigh replace %s dev %s managed extern_learn", n.IP, n.Dev)
	}
	return fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", n.IP, n.MAC, n.Dev)
}

func (r Route) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ip route replace %s", r.Dst)
	switch {
	case r.Via.Is6() && r.Dst.Addr().Is4():
		fmt.Fprintf(&b, " via inet6 %s", r.Via)
	case r.Via.IsValid():
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	if r.Dev != "" {
		fmt.Fprintf(&b, " dev %s", r.Dev)
	}
	if r.Onlink {
		b.WriteString(" onlink")
	}
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	if r.Table != 254 {
		fmt.Fprintf(&b, " table %d", r.Table)
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	fmt.Fprintf(&b, " proto %d", RouteProtocol)
	return b.String()
}

func (m Masquerade) String() string {
	table := config.FirewallTable(m.Network)
	var b strings.Builder
	fmt.Fprintf(&b, "nft 'add table inet %[1]s; delete table inet %[1]s; add table inet %[1]s; ", table)
	for _, f := range []struct{ family, kind, n string }{{"ip", "ipv4_addr", "4"}, {"ip6", "ipv6_addr", "6"}} {
		for _, set := range []struct{ name, list string }{{"sources", m.Sources}, {"excluded", m.Excluded}} {
			fmt.Fprintf(&b, "add set inet %s %s%s { type %s; flags interval; ", table, set.name, f.n, f.kind)
			if elements := family(set.list, f.family); elements != "" {
				fmt.Fprintf(&b, "elements = { %s }; ", elements)
			}
			b.WriteString("}; ")
		}
	}
	fmt.Fprintf(&b, "add chain inet %s postrouting { type nat hook postrouting priority srcnat; }", table)
	for _, f := range []struct{ family, n string }{{"ip", "4"}, {"ip6", "6"}} {
		fmt.Fprintf(&b, "; add rule inet %[1]s postrouting %[2]s saddr @sources%[3]s %[2]s daddr != @excluded%[3]s masquerade",
			table, f.family, f.n)
	}
	return b.String() + "'"
}

// String returns the command for a host where only the policy of FORWARD drops. Where a
// rule drops, the accept is inserted before it; with Docker, in DOCKER-USER.
func (f Forward) String() string {
	var b strings.Builder
	b.WriteString("iptables -w -A FORWARD")
	if f.family() == "IPv6" {
		b.Reset()
		b.WriteString("ip6tables -w -A FORWARD")
	}
	for _, a := range [][2]string{{"-i", f.In}, {"-o", f.Out}, {"-s", f.From}, {"-d", f.To}} {
		if a[1] != "" {
			b.WriteString(" " + a[0] + " " + a[1])
		}
	}
	if f.Answers {
		b.WriteString(" -m conntrack --ctstate RELATED,ESTABLISHED,DNAT")
	}
	b.WriteString(" -m comment --comment " + f.comment() + " -j ACCEPT")
	return b.String()
}

// comment returns the comment by which the rule is recognized.
func (f Forward) comment() string {
	if f.Routes {
		return "ovs-gre:" + f.Network + ":routes"
	}
	return "ovs-gre:" + f.Network
}

// packets says which packets, but for the addresses: "IPv4 from obr0-t to obr0".
func (f Forward) packets() string {
	s := f.family()
	if f.In != "" {
		s += " from " + f.In
	}
	if f.Out != "" {
		s += " to " + f.Out
	}
	if f.Answers {
		s += " (answers)"
	}
	return s
}

func (f Forward) family() string {
	if strings.Contains(f.From+f.To, ":") {
		return "IPv6"
	}
	return "IPv4"
}

// family returns the CIDRs of one nftables family in a list.
func family(list, family string) string {
	var of []string
	for s := range strings.SplitSeq(list, ",") {
		if s != "" && strings.Contains(s, ":") == (family == "ip6") {
			of = append(of, s)
		}
	}
	return strings.Join(of, ", ")
}

// ovsString quotes a value for ovs-vsctl and the shell if it needs quoting.
func ovsString(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}) {
		// ovs-vsctl takes a string in double quotes as JSON does.
		var q strings.Builder
		enc := json.NewEncoder(&q)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(s) // a string always encodes, into a strings.Builder too
		return `'` + strings.ReplaceAll(strings.TrimSpace(q.String()), `'`, `'\''`) + `'`
	}
	return s
}

// complaint returns a fault as a shell comment, "" for none.
func complaint(text string) string {
	if text == "" {
		return ""
	}
	// A line break would end the comment.
	return "  # " + config.Printable(text)
}
