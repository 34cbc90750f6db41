package state

import (
	"strconv"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// maxProbed is the most peers that are probed. The first probe of each is a broadcast
// through all tunnels: 64 peers make 4,096 frames at the first ADD; 500 would make
// 250,000, which took ovs-vswitchd two seconds of processor time.
const maxProbed = 64

// Probes returns neighbour entries and sysctls by which the kernel sends every peer an
// ARP request for its gateway address, which its transit link has, every few seconds.
// From the answers OVS learns again by which tunnel a peer is reached, after a restart
// of ovs-vswitchd has lost the FDB entries. The neighbour entries of the peers' next hops
// stay permanent, so that routing does not depend on answers.
//
// There are none where all peers share one port: that learns nothing.
// There are none for more than maxProbed peers; there the next ADD, up or pass of
// the agent brings the FDB entries back.
//
// Desired leaves them out, because not every kernel supports them: see
// kernel.CanProbe.
func Probes(c *config.Network, m nodes.Topology) []Object {
	if !UsesTunnelBridge(c) || OneTunnel(c) || !primary(m.Self).Is4() {
		return nil
	}
	dev := TunnelBridge(c)
	var objs []Object
	for _, p := range m.Peers {
		if gw := primary(p); gw.Is4() {
			objs = append(objs, Neigh{Dev: dev, IP: gw})
		}
	}
	if len(objs) == 0 || len(objs) > maxProbed {
		return nil
	}
	// An answer is valid for about one period. The kernel notices that it has expired
	// within a third of the period, and probes a second later. A peer that does not
	// answer is probed by broadcast every third of the period.
	const period = 3 * time.Second
	neigh, millis := "net/ipv4/neigh/"+dev+"/", func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return append(objs,
		Sysctl{neigh + "base_reachable_time_ms", millis(period)},
		Sysctl{neigh + "interval_probe_time_ms", millis(period / 3)},
		Sysctl{neigh + "delay_first_probe_time", "1"},
		Sysctl{neigh + "mcast_solicit", "1"},
		// Links of the userspace datapath lose their carrier when ovs-vswitchd ends.
		Sysctl{"net/ipv4/conf/" + dev + "/arp_evict_nocarrier", "0"},
	)
}
