package doctor

import (
	"context"
	"slices"
	"sync"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ping"
	"ovs-gre-cni/pkg/state"
)

// maxProbed is how many peers of a network are asked; of more, the first.
const maxProbed = 500

func (n *networkInfo) probedPeers() []config.Node {
	return n.topology.Peers[:min(len(n.topology.Peers), maxProbed)]
}

// manyProbed is how many peers are asked with one large packet only; sizes are
// common path MTUs in bytes, which are tried with fewer peers.
const manyProbed = 32

var sizes = []int{8950, 8000, 1500, 1492, 1480, 1476, 1462, 1458, 1450, 1442, 1430, 1420, 1410, 1400, 1380, 1350, 1320, 1300, 1280}

// answers are what a network's peers answer to echo requests, all of which are on
// their way at once: several checks judge them, and none waits for another's.
type answers struct {
	// underlay is a small one to each of probedPeers, to its own address.
	underlay []ping.Echo
	// gateways are to those gateway addresses of the peers that are of a family of
	// this host's, from its own gateway; of has each one's index in probedPeers.
	gateways []ping.Echo
	of       []int
	// sized are, for each of probedPeers, one of each size in try: the first is what
	// the tunnel makes of mtu, the MTU inside containers. Both are empty where mtuErr says
	// why, or the network has no bridge.
	sized  []ping.Echo
	try    []int
	mtu    int
	mtuErr error
}

// ask has the peers asked from now on; answers waits for what they say.
func (n *networkInfo) ask(ctx context.Context) {
	n.answers = sync.OnceValues(func() (answers, error) {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		a := n.questions(ctx)
		all := slices.Concat(a.underlay, a.gateways, a.sized)
		err := ping.Ask(ctx, all)
		copy(a.underlay, all)
		copy(a.gateways, all[len(a.underlay):])
		copy(a.sized, all[len(a.underlay)+len(a.gateways):])
		return a, err
	})
	go func() { _, _ = n.answers() }() // who needs it waits for it
}

// questions are the echo requests that nobody has answered yet.
func (n *networkInfo) questions(ctx context.Context) (a answers) {
	peers := n.probedPeers()
	for i, peer := range peers {
		a.underlay = append(a.underlay, ping.Echo{To: peer.Address, From: n.source()})
		for _, gw := range peer.Gateways() {
			if n.up && n.hasSubnet(gw.Is6()) {
				a.gateways, a.of = append(a.gateways, ping.Echo{To: gw, From: n.gatewayAddr(gw.Is6())}), append(a.of, i)
			}
		}
	}
	if n.OVS == nil || len(peers) == 0 {
		return a
	}
	open := network.Network{Config: n.OVS, Topology: n.topology}
	if _, a.mtu, a.mtuErr = open.Want(ctx); a.mtuErr != nil {
		return a
	}
	need := a.mtu + state.Overhead(n.OVS.Tunnel, n.topology.Self.Address.Is6())
	if a.try = []int{need}; len(peers) <= manyProbed {
		a.try = append(a.try, slices.DeleteFunc(slices.Clone(sizes), func(s int) bool { return s >= need })...)
	}
	for _, peer := range peers {
		for _, s := range a.try {
			a.sized = append(a.sized, ping.Echo{To: peer.Address, From: n.source(), Size: s})
		}
	}
	return a
}
