package state_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/state"
)

// TestCondensed: the routes by one tunnel port are the same for all peers one by one as
// for their subnets together.
func TestCondensed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, peers := range []int{0, 1, 2, 100, 1000} {
		for _, v6 := range []bool{false, true} {
			m := nodes.Topology{}
			for i := range peers + 1 {
				n := config.Node{Name: fmt.Sprint("h", i), Address: netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})}
				at := random.IntN(4) + 4*i // some side by side, some not
				n.Subnets = append(n.Subnets, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(at >> 8), byte(at), 0}), 24))
				if v6 {
					n.Subnets = append(n.Subnets, netip.MustParsePrefix(fmt.Sprintf("fd00:%x::/64", at)))
				}
				if i == 0 {
					m.Self = n
				} else {
					m.Peers = append(m.Peers, n)
				}
			}
			random.Shuffle(peers, func(i, j int) { m.Peers[i], m.Peers[j] = m.Peers[j], m.Peers[i] })
			c := &config.Routes{Mode: config.ModeTunnel, Table: 254}
			w := state.NextHops{Transit: "obr0-t", OneTunnel: true, Sources: m.Self.Gateways()}
			each, err := state.DesiredRoutes(c, m, w)
			together, failed := state.DesiredRoutes(c, state.Condensed(m), w)
			if diff := cmp.Diff(each.String(), together.String()); diff != "" || err != nil || failed != nil {
				t.Errorf("%d peers, IPv6 %t: %v, %v\n%s", peers, v6, err, failed, diff)
			}
		}
	}
}
