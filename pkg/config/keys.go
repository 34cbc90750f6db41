package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// A Key is one key of a configuration. The parsers, the JSON schema and the reference
// in docs/ are made from the tables of keys, so that they cannot differ.
type Key struct {
	// Name is the key's name; that of a key inside an object is "object.key".
	Name string
	// Type is the JSON type: string, boolean, integer, array or object.
	Type string
	// Enum lists the values of a string that has only these; nil means any.
	Enum []string
	// Default is the default value as the reference shows it; "" means there is none.
	Default string
	// Doc says what the key means, in one sentence without a full stop.
	Doc string

	set func(p *problems, c any, key string, raw json.RawMessage)
}

// baseKeys are the keys that both plugins have.
var baseKeys = []Key{
	{Name: "nodes", Type: "array or object", Doc: "every host of the network: name, address on the underlay, container subnets; " +
		"or in place of a list the prefixes underlay and containers: a host's subnet follows from its address", set: base(setNodes)},
	{Name: "nodesFile", Type: "string", Doc: "absolute path of a JSON file with the same list, read at every call", set: base(setNodesFile)},
	{Name: "node", Type: "string", Default: "the entry whose address is local",
		Doc: "name of this host's entry, where the address cannot tell", set: base(field(func(c *Base) *string { return &c.Node }))},
}

// NetworkKeys are the keys of ovs-gre.
var NetworkKeys = append(slices.Clone(baseKeys),
	Key{Name: "bridge", Type: "string", Default: DefaultBridge,
		Doc: "OVS bridge, made if absent; at most 13 characters",
		set: network(linkName(13, func(c *Network) *string { return &c.Bridge }))},
	Key{Name: "adoptBridge", Type: "boolean", Default: "false",
		Doc: "use an OVS bridge that exists and is not ours; it is never changed or deleted",
		set: network(field(func(c *Network) *bool { return &c.AdoptBridge }))},
	Key{Name: "segment", Type: "string", Enum: []string{"host", "mesh", "container"}, Default: "host",
		Doc: "how far a broadcast of a container travels",
		set: network(choice([]string{"host", "mesh", "container"}, func(c *Network) *Segment { return &c.Segment }))},
	Key{Name: "tunnel.type", Type: "string", Enum: []string{"gre", "vxlan", "geneve", "wireguard", "none"}, Default: "gre",
		Doc: "how packets travel between hosts; wireguard encrypts them, none means routes alone",
		set: network(choice([]string{TunnelGRE, TunnelVXLAN, TunnelGeneve, TunnelWireGuard, TunnelNone},
			func(c *Network) *string { return &c.Tunnel.Type }))},
	Key{Name: "tunnel.key", Type: "integer", Default: "none",
		Doc: "GRE key or VNI; networks with different keys share a pair of hosts",
		set: network(field(func(c *Network) **uint32 { return &c.Tunnel.Key }))},
	Key{Name: "tunnel.csum", Type: "boolean", Default: "false",
		Doc: "checksum of the outer packet", set: network(field(func(c *Network) *bool { return &c.Tunnel.Csum }))},
	Key{Name: "tunnel.port", Type: "integer", Default: "4789 (vxlan), 6081 (geneve), 51820 (wireguard)",
		Doc: "UDP port of VXLAN, Geneve and WireGuard; each WireGuard network of a host has another",
		set: network(number(1, 65535, func(c *Network) *uint16 { return &c.Tunnel.Port }))},
	Key{Name: "tunnel.bfd", Type: "boolean", Default: "false",
		Doc: "watch each tunnel by bidirectional forwarding detection",
		set: network(field(func(c *Network) *bool { return &c.Tunnel.BFD }))},
	Key{Name: "tunnel.keepalive", Type: "integer", Default: "0",
		Doc: "seconds after which WireGuard sends something to each peer, so that a NAT on the way remembers this host; 0 is never",
		set: network(number(0, 65535, func(c *Network) *uint16 { return &c.Tunnel.Keepalive }))},
	Key{Name: "tunnel.ports", Type: "string", Enum: []string{"peer", "one"}, Default: "peer; one where nodes is no list",
		Doc: "one OVS port a peer, or one for all of them, which a flow leads to the right one; hosts with either meet",
		set: network(choice([]string{PortsPeer, PortsOne}, func(c *Network) *string { return &c.Tunnel.Ports }))},
	Key{Name: "tunnel.options", Type: "object",
		Doc: "further options of OVS's tunnel interfaces, handed on as given (`ttl`, `tos`, `df_default`, …); " +
			"a secret is read from a file: `\"psk\": {\"file\": \"/its/path\"}`",
		set: network(setOptions)},
	Key{Name: "mtu", Type: "integer", Default: "0",
		Doc: "MTU inside the containers; 0 is automatic: the least MTU on the way to the peers less the encapsulation",
		set: network(setMTU)},
	Key{Name: "ipMasq", Type: "boolean", Default: "false",
		Doc: "masquerade what leaves for neither this host's nor a peer's container subnets",
		set: network(field(func(c *Network) *bool { return &c.IPMasq }))},
	Key{Name: "noMasqueradeCIDRs", Type: "array", Doc: "more destinations that are not masqueraded", set: network(setNoMasquerade)},
	Key{Name: "isDefaultGateway", Type: "boolean", Default: "true",
		Doc: "the container's default route goes by the gateway; otherwise only routes to the network's subnets do",
		set: network(field(func(c *Network) *bool { return &c.IsDefaultGateway }))},
	Key{Name: "spoofchk", Type: "boolean", Default: "true in segment container on the kernel datapath, else false",
		Doc: "drop what a container sends with another's MAC or IP address as source, ARP or ND sender, " +
			"at its own port; the kernel datapath alone can",
		set: network(setSpoofChk)},
	Key{Name: "linuxBridge", Type: "string",
		Doc: "an existing Linux bridge that holds the containers and the gateway address (docker0, br0)",
		set: network(linkName(15, func(c *Network) *string { return &c.LinuxBridge }))},
	Key{Name: "ovsdb", Type: "string", Default: "unix:" + DefaultOVSDB, Doc: "OVSDB socket", set: network(setOVSDB)},
	Key{Name: "datapathType", Type: "string", Enum: []string{"system", "netdev"}, Default: "OVS's own",
		Doc: "datapath of the bridge: the kernel's or the one in user space",
		set: network(choice([]string{"system", "netdev"}, func(c *Network) *string { return &c.DatapathType }))},
	Key{Name: "timeoutSeconds", Type: "integer", Default: "10", Doc: "bound on one call's waiting for OVS", set: network(setTimeout)},
	Key{Name: "ipam", Type: "object", Doc: "any IPAM plugin; host-local without ranges gets this host's subnets", set: network(setIPAM)},
	Key{Name: "dns", Type: "object", Default: "what IPAM says",
		Doc: "nameservers, domain, search and options, which the result hands to the runtime", set: network(setDNS)},
)

// RoutesKeys are the keys of route-sync.
var RoutesKeys = append(slices.Clone(baseKeys),
	Key{Name: "mode", Type: "string", Enum: []string{"tunnel", "direct", "auto"}, Default: "tunnel",
		Doc: "how packets get to a peer's containers: over the tunnel, by the peer's address, " +
			"or the latter where the peer is on a connected subnet",
		set: routes(choice([]string{"tunnel", "direct", "auto"}, func(c *Routes) *Mode { return &c.Mode }))},
	Key{Name: "bridge", Type: "string", Default: "first interface of prevResult",
		Doc: "OVS bridge whose tunnels carry routes of mode tunnel", set: routes(linkName(13, func(c *Routes) *string { return &c.Bridge }))},
	Key{Name: "table", Type: "integer or string", Default: "main",
		Doc: "routing table, by number or main, default, local", set: routes(setTable)},
	Key{Name: "metric", Type: "integer", Default: "0",
		Doc: "route metric", set: routes(number(0, 1<<31-1, func(c *Routes) *int { return &c.Metric }))},
)

// RuntimeKeys are keys of the runtime, of libcni or of other specifications; the
// parsers accept them.
var RuntimeKeys = []string{
	"cniVersion", "cniVersions", "name", "type", "capabilities", "runtimeConfig",
	"args", "prevResult", "dns", "ipam", "disableCheck", "disableGC", "loadOnlyInlinedPlugins",
}

// Capabilities are the capabilities that ovs-gre supports; route-sync supports none.
var Capabilities = []string{"ips", "mac", "ipRanges"}

// retiredKeys are keys that were ours, and why they need not be given any more.
var retiredKeys = map[string]string{
	"transitVLAN": "not needed any more: the tunnels have a bridge of their own: leave it out",
}

// foreignKeys are keys that conflists for others have, of containernetworking's
// bridge above all, and what becomes of what they say.
var foreignKeys = map[string]string{
	"isGateway":                 "always so: leave it out",
	"ipMasqBackend":             "always nftables: leave it out",
	"portIsolation":             `no such thing here: "segment": "container" is nearest`,
	"socket_file":               "here it is ovsdb",
	"forceAddress":              noSuchThing,
	"hairpinMode":               noSuchThing,
	"promiscMode":               noSuchThing,
	"vlan":                      noSuchThing,
	"vlanTrunk":                 noSuchThing,
	"trunk":                     noSuchThing,
	"preserveDefaultVlan":       noSuchThing,
	"macspoofchk":               noSuchThing,
	"enabledad":                 noSuchThing,
	"disableContainerInterface": noSuchThing,
	"master":                    noSuchThing,
	"delegate":                  noSuchThing,
}

const noSuchThing = "no such thing here: leave it out"

func isRuntimeKey(k string) bool {
	return slices.Contains(RuntimeKeys, k) || strings.HasPrefix(k, "cni.dev/") || strings.HasPrefix(k, "nerdctl")
}

// parse reads the keys of a configuration into b and c. It reports whether stdin is a
// JSON object.
func parse(p *problems, b *Base, c any, stdin []byte, keys []Key) bool {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(stdin, &fields)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		*p = append(*p, fmt.Errorf("configuration on standard input: %w: at byte %d: %w", ErrDecode, syntax.Offset, syntax))
		return false
	}
	if err != nil || fields == nil {
		*p = append(*p, fmt.Errorf("configuration on standard input: %w: %s", ErrDecode, oneLine(stdin)))
		return false
	}
	b.Raw = stdin
	var ipam struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(fields["ipam"], &ipam)
	shape := withOther
	if ipam.Type == "host-local" {
		shape = withHostLocal
	}
	p.strict("", stdin, shape)
	p.runtime(b, c, fields)
	p.fields(c, "", fields, keys)
	if b.NodesFile != "" && fields["nodes"] != nil {
		p.invalid("nodesFile", quote(b.NodesFile), "nodes is given too: leave out one of the two")
	}
	return true
}

// fields calls the setter of each key; a key inside an object has the prefix "object.".
func (p *problems) fields(c any, prefix string, fields map[string]json.RawMessage, keys []Key) {
	var known []string
	for _, k := range keys {
		if rest, ok := strings.CutPrefix(k.Name, prefix); ok {
			known = append(known, strings.Split(rest, ".")[0])
		}
	}
	for _, name := range sortedKeys(fields) {
		i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == prefix+name })
		switch {
		case i >= 0 && !strings.Contains(name, "."):
			keys[i].set(p, c, prefix+name, fields[name])
		case prefix == "" && isRuntimeKey(name):
		case slices.Contains(known, name):
			inner, err := decode[map[string]json.RawMessage](fields[name])
			if err != nil {
				p.invalid(prefix+name, fields[name], err.Error())
				continue
			}
			p.fields(c, prefix+name+".", inner, keys)
		case prefix == "":
			p.unknownKey(name, fields[name], known)
		default:
			p.unknown(prefix, name, known)
		}
	}
}

// unknownKey says what helps about a key that the plugin does not have.
func (p *problems) unknownKey(name string, raw json.RawMessage, known []string) {
	plugin := pluginWithKey(name)
	switch {
	case retiredKeys[name] != "":
		p.invalid(name, raw, retiredKeys[name])
	case plugin != "":
		p.invalid(name, nil, "a key of "+plugin+", unknown here")
	case foreignKeys[name] != "":
		p.invalid(name, nil, "unknown key ("+foreignKeys[name]+")")
	default:
		p.unknown("", name, append(slices.Clone(RuntimeKeys), known...))
	}
}

// pluginWithKey names the plugin that knows a key.
func pluginWithKey(name string) string {
	is := func(k Key) bool { return strings.Split(k.Name, ".")[0] == name }
	switch {
	case slices.ContainsFunc(NetworkKeys, is):
		return "ovs-gre"
	case slices.ContainsFunc(RoutesKeys, is):
		return "route-sync"
	}
	return ""
}

// runtime reads the keys that the runtime and libcni set.
func (p *problems) runtime(b *Base, c any, fields map[string]json.RawMessage) {
	b.CNIVersion, b.Name, b.Type = stringOf(fields["cniVersion"]), stringOf(fields["name"]), stringOf(fields["type"])
	if !isNetworkName(b.Name) {
		p.invalid("name", fields["name"], wantName)
	}
	if raw := fields["prevResult"]; len(raw) > 0 && string(raw) != "null" {
		b.PrevResult = raw
	}
	// The second name is that of the drafts of version 1.1.0 of the specification.
	for _, k := range []string{"cni.dev/valid-attachments", "cni.dev/attachments"} {
		if raw, ok := fields[k]; ok {
			b.Valid = p.attachments(k, raw)
			break
		}
	}
	var has []string
	if n, ok := c.(*Network); ok {
		has, n.MAC = Capabilities, requestedMAC(p, fields)
	}
	p.capabilities(fields["capabilities"], has)
}

// capabilities reports capabilities that the plugin does not support: the values that a
// runtime passes for them would have no effect.
func (p *problems) capabilities(raw json.RawMessage, has []string) {
	var given map[string]bool
	if raw != nil && json.Unmarshal(raw, &given) != nil {
		p.invalid("capabilities", raw, `want an object such as {"ips": true}`)
	}
	for _, name := range sortedKeys(given) {
		if !slices.Contains(has, name) {
			p.invalid("capabilities."+printable(name), nil, fmt.Sprintf("a capability that this plugin has not; it has %s", anyOf(has)))
		}
	}
}

func anyOf(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// attachments reads the attachments that GC must keep; nil means an invalid list.
func (p *problems) attachments(key string, raw json.RawMessage) *[]Attachment {
	var valid []Attachment // stays nil for null: libcni's way to say none
	if err := json.Unmarshal(raw, &valid); err != nil {
		p.invalid(key, raw, `want a list of {"containerID","ifname"}`)
		return nil
	}
	for i, a := range valid {
		if a.ContainerID == "" || a.IfName == "" {
			p.invalid(fmt.Sprintf("%s[%d]", key, i), nil, `want {"containerID","ifname"}`)
			return nil
		}
	}
	return &valid
}

// requestedMAC returns runtimeConfig.mac, else args.cni.mac, else "".
func requestedMAC(p *problems, fields map[string]json.RawMessage) string {
	var rc, cni struct {
		MAC string `json:"mac"`
	}
	var args struct {
		CNI json.RawMessage `json:"cni"`
	}
	_ = json.Unmarshal(fields["runtimeConfig"], &rc)
	_ = json.Unmarshal(fields["args"], &args)
	_ = json.Unmarshal(args.CNI, &cni)
	key, mac := "runtimeConfig.mac", rc.MAC
	if mac == "" {
		key, mac = "args.cni.mac", cni.MAC
	}
	if mac == "" {
		return ""
	}
	norm, err := NormalizeMAC(mac)
	if err != nil {
		p.invalid(key, quote(mac), err.Error())
	}
	return norm
}

// NormalizeMAC returns a MAC address in lower case with colons. The error says that s is
// none, or not that of one host.
func NormalizeMAC(s string) (string, error) {
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 || m[0]&1 != 0 || m.String() == "00:00:00:00:00:00" {
		return "", fmt.Errorf("want the MAC address of one host, such as 02:00:00:00:00:01")
	}
	return m.String(), nil
}
