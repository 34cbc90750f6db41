package doctor

import (
	"context"
	"errors"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// advertisements looks at what the kernel believes of routers: of containers
// on a link that is not ours, and no longer of the host's own.
func advertisements(ctx context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		if n.OVS != nil && (n.OVS.LinuxBridge != "" || n.OVS.AdoptBridge) {
			list = append(list, n.acceptsAdvertisements(ctx))
		}
	}
	return append(list, p.lostRouters()...)
}

// acceptsAdvertisements looks at a gateway link that keeps its own setting.
func (n *networkInfo) acceptsAdvertisements(ctx context.Context) Finding {
	live, err := network.LiveAttachments(ctx, n.Name())
	if err != nil {
		return unknown(n.Name(), err)
	}
	if !acceptsRA(n.gateway) || len(live) == 0 {
		return ok(n.Name(), "%s believes no router advertisement of a container", n.gateway)
	}
	return warn(n.Name(), "sysctl -w net/ipv6/conf/"+n.gateway+"/accept_ra=0",
		"link %s, which is not ours, believes router advertisements, also those of the %d containers on it: any of them can become "+
			"this host's IPv6 router", n.gateway, len(live))
}

// acceptsRA reports whether the kernel takes router advertisements on a link
// (ip-sysctl.rst, accept_ra).
func acceptsRA(link string) bool {
	conf := "net/ipv6/conf/" + link + "/"
	switch sysctl(conf + "accept_ra") {
	case "2":
	case "1":
		if sysctl(conf+"forwarding") != "0" {
			return false
		}
	default:
		return false
	}
	return sysctl(conf+"disable_ipv6") == "0"
}

// protoKernelRA is IFAPROT_KERNEL_RA of linux/if_addr.h: the kernel made the
// address of a router advertisement (Linux 5.18 and later tell).
const protoKernelRA = 2

// lostRouters looks for links that had a router and no longer listen to it.
func (p *host) lostRouters() []Finding {
	var list []Finding
	var links []string
	for _, a := range p.addrs {
		if a.Proto == protoKernelRA && !slices.Contains(links, a.Link) {
			links = append(links, a.Link)
		}
	}
	for _, l := range links {
		conf := "net/ipv6/conf/" + l + "/"
		if sysctl(conf+"accept_ra") == "1" && sysctl(conf+"forwarding") == "1" {
			list = append(list, fail("", "sysctl -w "+conf+"accept_ra=2",
				"link %s has addresses by router advertisement, and takes no more of them since this host forwards: its default route goes, "+
					"and they run out", l))
		} else {
			list = append(list, ok("", "link %s goes on listening to its router", l))
		}
	}
	return list
}

// loops looks for meshes whose bridge has a way to the peers besides the tunnels.
func loops(ctx context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		if n.OVS == nil || n.OVS.Segment != config.SegmentMesh || n.topologyErr != nil {
			continue
		}
		conn, err := ovs.Dial(ctx, n.OVS.OVSDB)
		if err != nil {
			continue // the check of the daemons says so
		}
		err = (&network.Network{Config: n.OVS, Topology: n.topology, Dir: rundir.NetworkDir(n.Name()), OVS: conn}).CheckNoLoop(ctx)
		conn.Close()
		switch {
		case errors.Is(err, fault.ErrForeign):
			list = append(list, fail(n.Name(), n.editCommand(), "%v", err))
		case err != nil:
			list = append(list, unknown(n.Name(), err))
		default:
			list = append(list, ok(n.Name(), "nothing but its tunnels joins %s to the other hosts", state.GatewayLink(n.OVS)))
		}
	}
	return list
}
