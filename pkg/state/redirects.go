package state

import (
	"net/netip"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// ignoreRouters are the sysctls by which the links that we make ignore what a
// container or a peer says about routing: no router advertisements, no
// redirects, and no IPv6 at all where nothing of the network is IPv6. They are
// set before the link goes up, for the kernel makes addresses then; of a link
// that is up it takes them away. A Linux bridge or an adopted bridge is another's.
func ignoreRouters(c *config.Network, m nodes.Topology) []Object {
	var objs []Object
	if !c.AdoptBridge {
		objs = append(objs, ignoreRoutersOn(c.Bridge, any6(m))...)
		if c.LinuxBridge == "" && c.Segment != config.SegmentMesh {
			// Containers of this host alone send here, from its subnets, and a
			// packet back to any of them leaves by this link.
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
	return slices.ContainsFunc(m.All(), func(n config.Node) bool {
		return slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Addr().Is6() })
	})
}

// MetWithoutIPv6 reports whether the kernel does what s asks for without having
// the parameter: on a link without IPv6, nothing has to be switched off.
func (s Sysctl) MetWithoutIPv6() bool {
	conf, ok := strings.CutPrefix(s.Key, "net/ipv6/conf/")
	if !ok {
		return false
	}
	_, name, _ := strings.Cut(conf, "/")
	return name == "disable_ipv6" && s.Value == "1" || (name == "accept_ra" || name == "accept_redirects") && s.Value == "0"
}
