package conformance

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A result is what ADD prints, in whatever version.
type result struct {
	CNIVersion string  `json:"cniVersion"`
	Interfaces []iface `json:"interfaces"`
	IPs        []ip    `json:"ips"`
	Routes     []route `json:"routes"`
}

type iface struct {
	Name    string `json:"name"`
	Mac     string `json:"mac"`
	Mtu     int    `json:"mtu"`
	Sandbox string `json:"sandbox"`
}

type ip struct {
	Version   string `json:"version"`
	Address   string `json:"address"`
	Gateway   string `json:"gateway"`
	Interface *int   `json:"interface"`
}

type route struct {
	Dst string `json:"dst"`
	GW  string `json:"gw"`
}

// inner is the interface in the container.
func (r result) inner(b *box) *iface {
	for i := range r.Interfaces {
		if r.Interfaces[i].Name == b.ifname && r.Interfaces[i].Sandbox != "" {
			return &r.Interfaces[i]
		}
	}
	return nil
}

// addrs are the addresses.
func (r result) addrs() (list []netip.Prefix) {
	for _, ip := range r.IPs {
		if p, err := netip.ParsePrefix(ip.Address); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// atLeast compares versions of the specification.
func atLeast(version, least string) bool {
	return slices.Index(Versions, version) >= slices.Index(Versions, least)
}

// keys that a result has, by version.
func allowed(version string) map[string][]string {
	k := map[string][]string{
		"":           {"cniVersion", "interfaces", "ips", "routes", "dns"},
		"interfaces": {"name", "mac", "sandbox"},
		"ips":        {"address", "gateway", "interface"},
		"routes":     {"dst", "gw"},
	}
	if !atLeast(version, "1.0.0") {
		k["ips"] = append(k["ips"], "version")
	}
	if atLeast(version, "1.1.0") {
		k["interfaces"] = append(k["interfaces"], "mtu", "socketPath", "pciID")
		k["routes"] = append(k["routes"], "mtu", "advmss", "priority", "table", "scope")
	}
	return k
}

// shape says what is wrong with the form of a result.
func shape(version, raw string) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(raw), &fields); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	var flaws []string
	look := func(part string, have map[string]json.RawMessage) {
		for k := range have {
			if !slices.Contains(allowed(version)[part], k) {
				flaws = append(flaws, fmt.Sprintf("%s has the key %q, which version %s does not know", strings.TrimPrefix(part+" of the result", " of "), k, version))
			}
		}
	}
	look("", fields)
	for _, part := range []string{"interfaces", "ips", "routes"} {
		var list []map[string]json.RawMessage
		if fields[part] == nil {
			continue
		}
		if err := json.Unmarshal(fields[part], &list); err != nil {
			return fmt.Errorf("result: %s: %w", part, err)
		}
		for _, e := range list {
			look(part, e)
		}
	}
	var r result
	if err := json.Unmarshal([]byte(raw), &r); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	if r.CNIVersion != version {
		flaws = append(flaws, fmt.Sprintf("cniVersion is %q, want %q", r.CNIVersion, version))
	}
	for _, ip := range r.IPs {
		p, err := netip.ParsePrefix(ip.Address)
		if err != nil {
			flaws = append(flaws, "ips: "+err.Error())
			continue
		}
		family := map[bool]string{true: "4", false: "6"}[p.Addr().Is4()]
		if !atLeast(version, "1.0.0") && ip.Version != family {
			flaws = append(flaws, fmt.Sprintf("ips: version of %s is %q, want %q", p, ip.Version, family))
		}
	}
	if len(flaws) > 0 {
		slices.Sort(flaws)
		return fmt.Errorf("result: %s", strings.Join(slices.Compact(flaws), "; "))
	}
	return nil
}

// indexes wants each address of a result to point at the box's interface.
func (r result) indexes(b *box) error {
	if len(r.IPs) == 0 {
		return fmt.Errorf("the result has no ips")
	}
	for _, ip := range r.IPs {
		if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(r.Interfaces) {
			return fmt.Errorf("ips: interface of %s is no index of interfaces", ip.Address)
		}
		if at := r.Interfaces[*ip.Interface]; at.Name != b.ifname || at.Sandbox == "" {
			return fmt.Errorf("ips: %s is at interface %q, want %s of the container", ip.Address, at.Name, b.ifname)
		}
	}
	return nil
}
