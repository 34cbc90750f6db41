package state

import (
	"strconv"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// maxProbed is how many peers are probed at most. Each that has not answered yet
// is asked by a broadcast through all tunnels: 64 make 4,096 frames at the
// first ADD, 500 would make 250,000, two seconds of ovs-vswitchd.
const maxProbed = 64

// Probes are what makes the kernel ask every peer for the MAC address of its
// gateway, which is an address of its transit link, every few seconds. The
// answers teach OVS where the peers are, again when ovs-vswitchd was restarted
// and has lost its FDB entries, although neighbours on the way of packets are
// permanent: those must not depend on answers. They are IPv4's alone: an IPv6
// gateway is not on the transit link.
//
// There are none where all peers share one port: that learns nothing.
// There are none for more than maxProbed peers; there the next ADD, up or pass of
// the agent brings the FDB entries back.
//
// Desired leaves them out, because not every kernel can: see
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
	// An answer is good for about the period; then it is stale, a third of it at
	// most until the kernel looks for such, and a second until it asks. Who does
	// not answer is asked by broadcast as often as it looks.
	const period = 3 * time.Second
	neigh, millis := "net/ipv4/neigh/"+dev+"/", func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return append(objs,
		Sysctl{neigh + "base_reachable_time_ms", millis(period)},
		Sysctl{neigh + "interval_probe_time_ms", millis(period / 3)},
		Sysctl{neigh + "delay_first_probe_time", "1"},
		Sysctl{neigh + "mcast_solicit", "1"},
		// The userspace datapath's links lose their carrier with ovs-vswitchd.
		Sysctl{"net/ipv4/conf/" + dev + "/arp_evict_nocarrier", "0"},
	)
}
