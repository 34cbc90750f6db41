package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// Versions are the versions of the specification that a chain is tried with.
var Versions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// A Chain is what is held against the specification.
type Chain struct {
	// Name is how the report calls it; "" is the network's name.
	Name string
	// Conflist is the network. Its cniVersion does not matter. The host that
	// it is for has the address 172.16.32.100/24 on eth0 (br-phy where Open
	// vSwitch runs in user space), and 172.16.32.2 is its default gateway.
	Conflist []byte
	// Bin is the directory of the chain's plugins, IPAM's included.
	Bin string
	// Tools is a directory with cnitool, tuning, portmap and bandwidth.
	Tools string
	// Setup is a shell script that prepares the host after each boot; "" does nothing.
	Setup string
}

// conf is a plugin's configuration.
type conf map[string]any

func (c conf) str(key string) string { s, _ := c[key].(string); return s }

// typ is the plugin's name.
func (c conf) typ() string { return c.str("type") }

func (c conf) ipam() conf { m, _ := c["ipam"].(map[string]any); return m }

func (c conf) capable(of string) bool {
	m, _ := c["capabilities"].(map[string]any)
	on, _ := m[of].(bool)
	return on
}

// clone copies deeply what came from JSON.
func clone[T any](v T) T {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var c T
	if err := json.Unmarshal(raw, &c); err != nil {
		panic(err)
	}
	return c
}

// parse reads the conflist and looks whether the binaries are there.
func (c *Chain) parse() (name string, plugins []conf, err error) {
	var list struct {
		Name    string `json:"name"`
		Plugins []conf `json:"plugins"`
	}
	if err := json.Unmarshal(c.Conflist, &list); err != nil {
		return "", nil, fmt.Errorf("conflist: %w", err)
	}
	if list.Name == "" || len(list.Plugins) == 0 {
		return "", nil, errors.New("conflist: want a name and plugins")
	}
	var errs []error
	for _, p := range list.Plugins {
		for _, typ := range []string{p.typ(), p.ipam().str("type")} {
			if typ == "" {
				continue
			}
			if st, err := os.Stat(filepath.Join(c.Bin, typ)); err != nil || !st.Mode().IsRegular() {
				errs = append(errs, fmt.Errorf("plugin %q: no such file in %s", typ, c.Bin))
			}
		}
		// The suite looks where host-local keeps its files by default.
		delete(p.ipam(), "dataDir")
	}
	for _, tool := range tools {
		if _, err := os.Stat(filepath.Join(c.Tools, tool)); err != nil {
			errs = append(errs, fmt.Errorf("tool: %w", err))
		}
	}
	return list.Name, list.Plugins, errors.Join(errs...)
}

// tools are what the clauses need beside the chain.
var tools = []string{"cnitool", "tuning", "portmap", "bandwidth"}

// A network is a conflist in one version, as a runtime holds it. It is never
// changed: edit and with return another one.
type network struct {
	version, name string
	plugins       []conf
}

// edit returns the network with changed configurations.
func (n network) edit(f func(i int, c conf)) network {
	n.plugins = clone(n.plugins)
	for i, c := range n.plugins {
		f(i, c)
	}
	return n
}

// first edits the plugin that makes the interface.
func (n network) first(f func(c conf)) network {
	return n.edit(func(i int, c conf) {
		if i == 0 {
			f(c)
		}
	})
}

// with returns the network with more plugins at the end of the chain.
func (n network) with(more ...conf) network {
	n.plugins = append(slices.Clone(n.plugins), more...)
	return n
}

// recorded returns the network with the recorder in place of its IPAM plugin.
func (n network) recorded() network {
	return n.first(func(c conf) { c.ipam()["type"] = recorder })
}

// other returns a network beside this one: another name, other subnets, and
// other devices where two networks cannot share theirs.
func (n network) other() network {
	n.name += "2"
	return n.edit(func(_ int, c conf) {
		apart(map[string]any(c))
		switch c.typ() {
		case "ovs-gre":
			c["bridge"] = "obr-other"
			tunnel, _ := c["tunnel"].(map[string]any)
			if tunnel == nil {
				tunnel = map[string]any{}
			}
			tunnel["key"] = 4711
			c["tunnel"] = tunnel
		case "bridge":
			c["bridge"] = "cni-other"
		}
	})
}

// apart changes every address but those of hosts.
func apart(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if k != "address" {
				v[k] = apart(e)
			}
		}
	case []any:
		for i, e := range v {
			v[i] = apart(e)
		}
	case string:
		if p, err := netip.ParsePrefix(v); err == nil {
			return netip.PrefixFrom(neighbour(p.Addr()), p.Bits()).String()
		}
		if a, err := netip.ParseAddr(v); err == nil {
			return neighbour(a).String()
		}
	}
	return v
}

// neighbour is the address with the lowest bit of its first byte turned.
func neighbour(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	b[0] ^= 1
	n, _ := netip.AddrFromSlice(b)
	return n
}

// conf is what the runtime gives plugin i, with more keys on top.
func (n network) conf(i int, more conf) conf {
	c := clone(n.plugins[i])
	c["cniVersion"], c["name"] = n.version, n.name
	delete(c, "capabilities") // the runtime's alone
	maps.Copy(c, more)
	return c
}

func (n network) stdin(i int, more conf) string {
	raw, err := json.Marshal(n.conf(i, more))
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// conflist is the network as a file.
func (n network) conflist() string {
	raw, err := json.MarshalIndent(map[string]any{"cniVersion": n.version, "name": n.name, "plugins": n.plugins}, "", "  ")
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// index finds a plugin, or is -1.
func (n network) index(typ string) int {
	return slices.IndexFunc(n.plugins, func(c conf) bool { return c.typ() == typ })
}
