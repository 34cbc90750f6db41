package config

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// An Option is an option of OVS's tunnel interfaces that is handed on as given
// (the column options of Interface in ovs-vswitchd.conf.db(5)).
type Option struct {
	Name string
	// Value is the option's value; "" where File has it.
	Value string
	// File is the absolute path of the file that has the value; "" means that Value
	// is it. What is in the file is a secret, and never part of a configuration.
	File string
}

// ownOptions are options of OVS's tunnel interfaces that follow from other keys,
// or that would break what follows from them, and why they are refused.
var ownOptions = map[string]string{
	"remote_ip":   "it is the address of each peer in nodes: leave it out",
	"local_ip":    "it is this host's address in nodes: leave it out",
	"key":         "here it is tunnel.key",
	"in_key":      "both directions have one key, here it is tunnel.key",
	"out_key":     "both directions have one key, here it is tunnel.key",
	"dst_port":    "here it is tunnel.port",
	"csum":        "here it is tunnel.csum",
	"packet_type": "the tunnels carry Ethernet frames, and no others: leave it out",
	"seq":         "the MTU has no room for sequence numbers: leave it out",
}

// ipsecOptions have OVS's IPsec daemon encrypt a tunnel (ovs-monitor-ipsec).
var ipsecOptions = []string{"psk", "remote_cert", "remote_name"}

// secretOptions are only taken from a file.
var secretOptions = []string{"psk"}

// IPsec is the name of the option by which the tunnels are for OVS's IPsec daemon
// to encrypt; "" means that none is.
func (t Tunnel) IPsec() string {
	for _, o := range t.Options {
		if slices.Contains(ipsecOptions, o.Name) {
			return o.Name
		}
	}
	return ""
}

// setOptions reads tunnel.options. No message has a value: it may be a secret.
func setOptions(p *problems, c *Network, key string, raw json.RawMessage) {
	fields, err := decode[map[string]json.RawMessage](raw)
	if err != nil {
		p.invalid(key, nil, err.Error()+` such as {"ttl": 64}`)
		return
	}
	for _, name := range sortedKeys(fields) {
		at := key + "." + printable(name)
		o, why := option(name, fields[name])
		if why != "" {
			p.invalid(at, nil, why)
			continue
		}
		c.Tunnel.Options = append(c.Tunnel.Options, o)
	}
}

// option reads an option, or says what is wrong with it.
func option(name string, raw json.RawMessage) (o Option, why string) {
	o.Name = name
	switch {
	case ownOptions[name] != "":
		return o, ownOptions[name]
	case name == "" || len(name) > 64 || !only(name, "_") || name != strings.ToLower(name):
		return o, "no name of an option of OVS's: want small letters, digits and '_'"
	case raw[0] == '{':
		return fileOption(o, raw)
	case slices.Contains(secretOptions, name):
		return o, `a secret does not stand in a conflist: put it into a file that root alone can read, and want {"file": "/its/path"}`
	}
	o.Value = string(raw) // a number, true or false
	if raw[0] == '"' {
		o.Value = stringOf(raw)
	}
	if raw[0] == '[' || o.Value == "null" || o.Value == "" || len(o.Value) > 512 || !isPrintable(o.Value) {
		return o, `want a number, true, false, a string of 1 to 512 printable characters, or {"file": "/its/path"}`
	}
	return o, ""
}

func fileOption(o Option, raw json.RawMessage) (Option, string) {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(raw, &fields)
	o.File = stringOf(fields["file"])
	if len(fields) != 1 || !filepath.IsAbs(o.File) || !isPrintable(o.File) {
		return o, `want {"file": "/its/path"}, an absolute path`
	}
	o.File = filepath.Clean(o.File)
	return o, ""
}

// checkOptions is what must hold between tunnel.options and other keys.
func (c *Network) checkOptions(p *problems) {
	t, ipsec := c.Tunnel, c.Tunnel.IPsec()
	if len(t.Options) == 0 || !p.noneOf("tunnel.type") {
		return
	}
	if t.Type == TunnelWireGuard || t.Type == TunnelNone {
		p.invalid("tunnel.options", nil, "they are those of OVS's tunnels, and there are none with tunnel.type "+t.Type+": leave them out")
		return
	}
	if ipsec == "" {
		return
	}
	at := "tunnel.options." + ipsec
	has := func(name string) bool {
		return slices.ContainsFunc(t.Options, func(o Option) bool { return o.Name == name })
	}
	if ipsec == "psk" && (has("remote_cert") || has("remote_name")) {
		p.invalid(at, nil, "a peer is known by a pre-shared key or by its certificate: leave out psk, or remote_cert and remote_name")
	}
	if t.Ports == PortsOne {
		p.invalid(at, nil, "IPsec is between two hosts, and one port for all peers has no far end: leave out tunnel.ports")
	}
	if c.DatapathType == "netdev" {
		p.invalid(at, nil, "OVS's userspace datapath sends past the kernel's IPsec, in clear: use datapathType system")
	}
	// The ports are written into ovs-monitor-ipsec (transp_tmpl).
	if own := map[string]uint16{TunnelVXLAN: 4789, TunnelGeneve: 6081}[t.Type]; t.Port != 0 && t.Port != own && own != 0 {
		p.invalid(at, nil, fmt.Sprintf("OVS's IPsec daemon encrypts UDP port %d alone: leave out tunnel.port", own))
	}
}
