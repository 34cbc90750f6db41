package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// forwarding looks whether the kernel forwards at all.
func forwarding(_ context.Context, p *host) []Finding {
	need := map[string]bool{}
	up := false // else ovs-gre sets them in time
	for _, n := range p.nets {
		up = up || n.up || n.OVS == nil
		need["net/ipv4/ip_forward"] = need["net/ipv4/ip_forward"] || n.hasSubnet(false)
		need["net/ipv6/conf/all/forwarding"] = need["net/ipv6/conf/all/forwarding"] || n.hasSubnet(true)
	}
	var list []Finding
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		switch v := sysctl(key); {
		case !need[key]:
		case !up && v == "0":
			list = append(list, ok("", "%s is 0, as long as nothing is up", key))
		case v == "0" || v == "":
			list = append(list, fail("", "sysctl -w "+key+"=1", "%s is %q: this host forwards nothing to containers", key, v))
		default:
			list = append(list, ok("", "%s is %s", key, v))
		}
	}
	return list
}

// reversePath looks at the reverse path filters of the gateway's and the underlay's
// links. The kernel takes the greater of all and the link's own (ip-sysctl.rst);
// strict (1) drops what comes by another way than it would go, loose (2) only what
// no way leads to.
func reversePath(_ context.Context, p *host) []Finding {
	var list []Finding
	all, _ := strconv.Atoi(sysctl("net/ipv4/conf/all/rp_filter"))
	for _, n := range p.nets {
		if n.loose(all) {
			list = append(list, warn(n.Name(), "sysctl -w net/ipv4/conf/all/rp_filter=0", "rp_filter of all is %d, so that of %s is loose "+
				"and not 1: without spoofchk a container may send from any IPv4 address that this host has a route to", all, n.OVS.Bridge))
		}
		if n.topologyErr != nil || n.underlay == "" || n.topology.Self.Address.Is6() {
			continue
		}
		own, _ := strconv.Atoi(sysctl("net/ipv4/conf/" + n.underlay + "/rp_filter"))
		cmd := "sysctl -w net/ipv4/conf/" + n.underlay + "/rp_filter=2"
		switch {
		case max(all, own) != 1 || n.mode() == config.ModeDirect:
			list = append(list, ok(n.Name(), "rp_filter of %s is %d (the greater of all: %d, own: %d)", n.underlay, max(all, own), all, own))
		case n.mode() == config.ModeAuto:
			list = append(list, fail(n.Name(), cmd, "rp_filter of %s is strict (all: %d, own: %d): "+
				"where one host goes directly and the other by the tunnel, answers are dropped", n.underlay, all, own))
		default:
			list = append(list, warn(n.Name(), cmd, "rp_filter of %s is strict (all: %d, own: %d): "+
				"what this host sends from its own address to a peer's containers may come back by another way and is dropped",
				n.underlay, all, own))
		}
	}
	return list
}

// loose reports whether the strict filter of the gateway's link, which keeps containers
// that nothing else checks to this host's subnets, is not in force.
func (n *networkInfo) loose(all int) bool {
	if n.OVS == nil || all <= 1 || sysctl("net/ipv4/conf/"+n.OVS.Bridge+"/rp_filter") != "1" {
		return false
	}
	datapath := ""
	if n.netdev {
		datapath = "netdev"
	}
	return !n.OVS.ChecksSpoof(datapath)
}

// hostState compares the host with what the conflist says.
func hostState(ctx context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		if n.topologyErr != nil {
			continue
		}
		changes, err := n.drift(ctx)
		switch {
		case errors.Is(err, fault.ErrUnavailable):
			continue // the check of the daemons says so
		case errors.Is(err, state.ErrUnreachable) && n.OVS == nil:
			list = append(list, ok(n.Name(), "no routes yet: they come with the first container"))
		case err != nil:
			list = append(list, fail(n.Name(), n.ctlCommand("status"), "%v", err))
		case n.upError != nil:
			for line := range strings.Lines(n.upError.Error()) {
				list = append(list, fail(n.Name(), n.editCommand(), "%s", strings.TrimSpace(line)))
			}
		case n.unused(changes):
			list = append(list, warn(n.Name(), n.upCommand(), "nothing is made yet: the first container does it, or ovs-grectl up"))
		case len(changes) == 0 && n.lostLeases(ctx) != "":
			list = append(list, fail(n.Name(), n.upCommand(), "%s", n.lostLeases(ctx)))
		case len(changes) == 0:
			list = append(list, ok(n.Name(), "bridge, tunnels, addresses and routes are as the conflist says"))
		default:
			list = append(list, fail(n.Name(), n.upCommand(), "%s%s", state.Groups(changes)[0].Text, others(changes)))
		}
	}
	return list
}

// others says how much there is to tell of changes besides the first.
func others(changes []state.Change) string {
	more := len(state.Groups(changes)) - 1
	if more == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more: ovs-grectl status has all)", more)
}

// unused reports whether no container has come in this boot and nobody has
// called up.
func (n *networkInfo) unused(changes []state.Change) bool {
	idle, err := rundir.NetworkDir(n.Name()).Unused(rundir.LeasesOVS, rundir.LeasesRoutes)
	return err == nil && idle && len(changes) > 0 && changes[0].Old == nil && changes[0].Kind() <= state.KindBridge
}

// lostLeases names a container that nobody counts any more; "" is none.
func (n *networkInfo) lostLeases(ctx context.Context) string {
	lost, err := attach.WithoutLease(ctx, n.Name())
	if err != nil || len(lost) == 0 {
		return ""
	}
	return fmt.Sprintf("%d containers have lost their leases in %s: %s %s and others",
		len(lost), rundir.RunDir, lost[0].ContainerID, lost[0].IfName)
}

// drift compares the host with what the conflist says, once for all checks.
func (n *networkInfo) drift(ctx context.Context) ([]state.Change, error) {
	n.comparing.Lock()
	defer n.comparing.Unlock()
	if n.compared {
		return n.changes, nil
	}
	changes, err := n.compare(ctx)
	n.changes, n.compared = changes, err == nil
	return changes, err
}

func (n *networkInfo) compare(ctx context.Context) ([]state.Change, error) {
	var changes []state.Change
	if n.OVS != nil {
		open, err := network.Open(ctx, n.OVS)
		if err != nil {
			return nil, err
		}
		defer open.OVS.Close()
		if changes, _, err = open.Check(ctx); err != nil || len(changes) > 0 {
			return changes, err
		}
	}
	if n.Routes == nil {
		return changes, nil
	}
	bridge := ""
	if n.OVS != nil {
		bridge = n.OVS.Bridge
	}
	r, err := routes.Open(ctx, n.Routes, bridge)
	if err != nil {
		return changes, err
	}
	r.UseNetwork(n.OVS)
	more, err := r.Check(ctx)
	return append(changes, more...), err
}

// leaked looks for addresses of containers that are gone.
func leaked(ctx context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		if n.OVS == nil || n.OVS.IPAM.Type != "host-local" {
			continue
		}
		held, err := attach.LeakedAddresses(ctx, n.OVS)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			list = append(list, unknown(n.Name(), err))
		case len(held) > 0:
			list = append(list, fail(n.Name(), n.ctlCommand("gc"),
				"host-local holds %d addresses of containers that are gone: %s of %q and others",
				len(held), held[0].IP, held[0].ContainerID))
		default:
			list = append(list, ok(n.Name(), "host-local holds no address of a container that is gone"))
		}
	}
	return list
}
