package state

import (
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// ignoreRouters returns the sysctls by which the network's own links ignore router
// advertisements and redirects of containers and peers, and have no IPv6 at all where
// the network has none. They must be set before a link goes up, when the kernel makes
// its IPv6 addresses. A Linux bridge or an adopted bridge is foreign and keeps its own.
func ignoreRouters(c *config.Network, m nodes.Topology) []Object {
	var objs []Object
	if !c.AdoptBridge {
		objs = append(objs, ignoreRoutersOn(c.Bridge, any6(m))...)
		if c.LinuxBridge == "" && c.Segment != config.SegmentMesh {
			// Only containers of this host send on this link, from addresses that
			// are routed to it: a strict filter drops no valid packet.
			objs = append(objs, Sysctl{"net/ipv4/conf/" + c.Bridge + "/rp_filter", "1"})
		}
	}
	if Encrypted(c) {
		objs = append(objs, ignoreRoutersOn(config.WireGuardName(c.Bridge), any6(m))...)
	}
	if UsesTunnelBridge(c) {
		objs = append(objs, ignoreRoutersOn(config.TransitLink(c.Bridge), any6(m) || m.Self.Address.Is6())...)
	}
	return objs
}

func ignoreRoutersOn(dev string, has6 bool) []Object {
	disable := "1"
	if has6 {
		disable = "0"
	}
	v4, v6 := "net/ipv4/conf/"+dev+"/", "net/ipv6/conf/"+dev+"/"
	return []Object{
		Sysctl{v4 + "accept_redirects", "0"},
		Sysctl{v6 + "accept_ra", "0"},
		Sysctl{v6 + "accept_redirects", "0"},
		Sysctl{v6 + "disable_ipv6", disable},
	}
}

// any6 reports whether a host of the network has an IPv6 subnet.
func any6(m nodes.Topology) bool {
	return has6(m.Self) || slices.ContainsFunc(m.Peers, has6)
}

// MetWithoutIPv6 reports whether s only switches off something that a link without IPv6,
// which has no such parameter, does not do anyway.
func (s Sysctl) MetWithoutIPv6() bool {
	conf, ok := strings.CutPrefix(s.Key, "net/ipv6/conf/")
	if !ok {
		return false
	}
	_, name, _ := strings.Cut(conf, "/")
	return name == "disable_ipv6" && s.Value == "1" || (name == "accept_ra" || name == "accept_redirects") && s.Value == "0"
}
