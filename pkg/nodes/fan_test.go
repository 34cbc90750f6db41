package nodes_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// TestFindInFan: where no list has them, this host and its peers follow from addresses.
func TestFindInFan(t *testing.T) {
	fan := config.Fan{Underlay: netip.MustParsePrefix("172.16.0.0/16"), Containers: netip.MustParsePrefix("10.0.0.0/8")}
	for _, tc := range []struct {
		name, node string
		local      []netip.Addr
		want       string // this host, its subnet, whether local
	}{
		{"by address", "", addrs("127.0.0.1", "::1", "10.3.7.1", "172.16.3.7", "172.17.0.1"), "172.16.3.7 [10.3.7.0/24] true"},
		{"the same address on two links", "", addrs("172.16.3.7", "172.16.3.7"), "172.16.3.7 [10.3.7.0/24] true"},
		{"by name, where two are local", "172.16.3.8", addrs("172.16.3.7", "172.16.3.8"), "172.16.3.8 [10.3.8.0/24] true"},
		{"behind NAT", "172.16.3.9", addrs("192.168.0.1"), "172.16.3.9 [10.3.9.0/24] false"},
		{"none", "", addrs("127.0.0.1", "192.168.0.1"), "invalid configuration: nodes.underlay 172.16.0.0/16: none of this host's addresses " +
			"(192.168.0.1) is in it: give it one, or name it with the key node"},
		{"two", "", addrs("172.16.3.7", "172.16.3.8"), "invalid configuration: nodes.underlay 172.16.0.0/16: 172.16.3.7 and 172.16.3.8 are both " +
			"this host's: name one of them with the key node"},
		{"another network's", "172.17.0.1", nil, `invalid configuration: node "172.17.0.1": not in 172.16.0.0/16, the underlay`},
		{"no address", "host1", nil, "invalid configuration: nodes.underlay 172.16.0.0/16: none of this host's addresses " +
			"(it has none) is in it: give it one, or name it with the key node"},
	} {
		m, err := nodes.Find(&config.Base{Fan: fan, Node: tc.node}, tc.local)
		got := fmt.Sprint(m.Self, m.Self.Subnets, " ", m.Local)
		if err != nil {
			got = err.Error()
			if !errors.Is(err, config.ErrInvalid) || m.HasPeers() {
				t.Errorf("%s: %v, %v", tc.name, err, m)
			}
		}
		if got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}

	m, err := nodes.Find(&config.Base{Fan: fan}, addrs("172.16.3.7"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(m.HasPeers(), len(m.Peers), len(m.All()), m.Holders(), m.PeerSubnets()); got != "true 0 1 [the hosts in 172.16.0.0/16] [10.0.0.0/8]" {
		t.Error(got)
	}
	for a, want := range map[string]string{
		"172.16.9.9": "172.16.9.9 [10.9.9.0/24] true", "10.9.9.77": "172.16.9.9 [10.9.9.0/24] true",
		"172.16.3.7": "false", "10.3.7.2": "false", "192.168.0.1": "false", "fd00::1": "false",
	} {
		got := "false"
		if p, ok := m.PeerOf(netip.MustParseAddr(a)); ok {
			got = fmt.Sprint(p, p.Subnets, " ", ok)
		}
		if got != want {
			t.Errorf("the peer of %s is %s, want %s", a, got, want)
		}
	}
	if n, err := nodes.Find(&config.Base{Nodes: testNodes(2)}, addrs("172.16.32.1")); err != nil || len(n.Peers) != 1 || len(n.PeerSubnets()) != 1 {
		t.Errorf("of a list: %v %v", n, err)
	}
}
