package attach

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/nodes"
)

// An addressing has the addresses and routes for the container's interface.
type addressing struct {
	addrs  []netip.Prefix
	routes []kernel.ContainerRoute
}

// address adds this network's gateways and routes to the IPAM plugin's result, and returns
// the addresses and routes for the container's interface.
func address(c *config.Network, m nodes.Topology, res *current.Result) (addressing, error) {
	var a addressing
	gateways := map[bool]netip.Addr{} // by Is4
	for _, ip := range res.IPs {
		addr, gw, err := gatewayOf(c, m, ip)
		if err != nil {
			return a, err
		}
		if c.Segment == config.SegmentContainer {
			addr = netip.PrefixFrom(addr.Addr(), addr.Addr().BitLen())
			a.routes = append(a.routes, kernel.ContainerRoute{Dst: netip.PrefixFrom(gw, gw.BitLen())})
		}
		a.addrs = append(a.addrs, addr)
		gateways[gw.Is4()] = gw
		ip.Address, ip.Gateway, ip.Interface = ipNet(addr), gw.AsSlice(), current.Int(2)
	}
	if err := routes(c, m, res, gateways); err != nil {
		return a, err
	}
	for _, r := range res.Routes {
		a.routes = append(a.routes, containerRoute(r))
	}
	return a, nil
}

// gatewayOf returns an address that IPAM gave, with the prefix length that fits the
// segment, and its gateway.
func gatewayOf(c *config.Network, m nodes.Topology, ip *current.IPConfig) (addr netip.Prefix, gw netip.Addr, err error) {
	a, ok := netip.AddrFromSlice(ip.Address.IP)
	ones, _ := ip.Address.Mask.Size()
	a = a.Unmap()
	if !ok || !a.IsValid() {
		return addr, gw, fmt.Errorf("%w: ipam gave the address %q", config.ErrInvalid, ip.Address.String())
	}
	i := slices.IndexFunc(m.Self.Subnets, func(s netip.Prefix) bool { return s.Contains(a) })
	if i < 0 {
		return addr, gw, notOurSubnet(m, a)
	}
	subnet := m.Self.Subnets[i]
	gw = config.Gateway(subnet)
	if given, ok := netip.AddrFromSlice(ip.Gateway); ok && given.Unmap() != gw {
		if c.LinuxBridge == "" {
			return addr, gw, fmt.Errorf("%w: ipam: gateway %s: this host's gateway in %s is its first address, %s",
				config.ErrInvalid, given.Unmap(), subnet, gw)
		}
		gw = given.Unmap() // the Linux bridge may have another
	}
	if !isHost(subnet, a) {
		return addr, gw, fmt.Errorf("%w: ipam gave %s, which stands for %s itself or for all in it", config.ErrInvalid, a, subnet)
	}
	if a == gw {
		return addr, gw, fmt.Errorf("%w: ipam gave %s, which is the gateway's own address", config.ErrInvalid, a)
	}
	addr = netip.PrefixFrom(a, ones)
	// The container sends ARP for addresses in its prefix. In segment mesh peers'
	// containers answer; in others the prefix must not be wider than the subnet. The
	// gateway must be in it.
	if wide := ones < subnet.Bits() && c.Segment != config.SegmentMesh; wide || !addr.Masked().Contains(gw) {
		addr = netip.PrefixFrom(a, subnet.Bits())
	}
	return addr, gw, nil
}

// isHost reports whether a host can have an address of a subnet: of IPv4, the first
// stands for the subnet and the last for all in it.
func isHost(subnet netip.Prefix, a netip.Addr) bool {
	return a.Is6() || subnet.Contains(a.Prev()) && subnet.Contains(a.Next())
}

// notOurSubnet is the error about an address that is in none of this host's subnets:
// peers would not send its packets to this host.
func notOurSubnet(m nodes.Topology, a netip.Addr) error {
	of := "which is in none of this host's subnets"
	if p, ok := m.PeerOf(a); ok {
		if i := slices.IndexFunc(p.Subnets, func(s netip.Prefix) bool { return s.Contains(a) }); i >= 0 {
			of = fmt.Sprintf("which is in %s of %s, not in this host's subnets", p.Subnets[i], p)
		}
	}
	return fmt.Errorf("%w: ipam gave %s, %s %v: peers would not find it", config.ErrInvalid, a, of, m.Self.Subnets)
}

// routes adds the network's routes to those of the IPAM plugin: a default route by the
// gateway, or routes to the network's subnets.
func routes(c *config.Network, m nodes.Topology, res *current.Result, gateways map[bool]netip.Addr) error {
	has := map[netip.Prefix]bool{}
	for _, r := range res.Routes {
		dst, ok := prefix(&r.Dst)
		if !ok {
			return fmt.Errorf("%w: ipam gave a route to %q", config.ErrInvalid, r.Dst.String())
		}
		if what := oddRoute(r); what != "" {
			return fmt.Errorf("%w: ipam gave a route to %s with %s", config.ErrInvalid, dst, what)
		}
		has[dst] = true
		if gw, ok := gateways[dst.Addr().Is4()]; ok && r.GW == nil && (r.Scope == nil || *r.Scope == 0) {
			r.GW = gw.AsSlice()
		}
	}
	var dsts []netip.Prefix
	if c.IsDefaultGateway {
		dsts = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	} else {
		dsts = m.PeerSubnets()
		if c.Segment == config.SegmentContainer {
			dsts = append(dsts, m.Self.Subnets...)
		}
	}
	for _, dst := range dsts {
		if gw, ok := gateways[dst.Addr().Is4()]; ok && !has[dst] {
			res.Routes = append(res.Routes, &types.Route{Dst: ipNet(dst), GW: gw.AsSlice()})
		}
	}
	return nil
}

// oddRoute names a number of a route that the kernel has no room for, or takes for
// another; "" is none.
func oddRoute(r *types.Route) string {
	value := func(p *int, unset int) int {
		if p == nil {
			return unset
		}
		return *p
	}
	table := value(r.Table, unix.RT_TABLE_MAIN)
	for _, n := range []struct {
		name       string
		value, top int
	}{
		{"mtu", r.MTU, 65535}, {"advmss", r.AdvMSS, 65535}, {"priority", r.Priority, math.MaxUint32},
		{"table", table, math.MaxUint32}, {"scope", value(r.Scope, 0), unix.RT_SCOPE_HOST},
	} {
		if n.value < 0 || n.value > n.top {
			return fmt.Sprintf("%s %d: want 0 to %d", n.name, n.value, n.top)
		}
	}
	if table == unix.RT_TABLE_LOCAL {
		return fmt.Sprintf("table %d: it is the kernel's own", table)
	}
	return ""
}

func containerRoute(r *types.Route) kernel.ContainerRoute {
	dst, _ := prefix(&r.Dst)
	via, _ := netip.AddrFromSlice(r.GW)
	k := kernel.ContainerRoute{Dst: dst, Via: via.Unmap(), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority}
	if r.Table != nil && *r.Table != unix.RT_TABLE_MAIN {
		k.Table = *r.Table
	}
	if r.Scope != nil {
		k.Scope = *r.Scope
	}
	return k
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	a = a.Unmap()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones).Masked(), true
}

func sameAddr(ip string, bits int) func(netip.Prefix) bool {
	return func(p netip.Prefix) bool { return p.Bits() == bits && p.Addr().String() == ip }
}
