package kernel

import (
	"strings"
	"testing"

	"ovs-gre-cni/pkg/state"
)

func TestPrefixes(t *testing.T) {
	ctx := underlay(t)
	mustEnsure(t, ctx, kernelOnly(wanted()), NewBackend(scope))
	for _, args := range []string{
		"addr add 192.168.9.7/24 dev eth0 noprefixroute",
		"route add 10.1.0.0/16 via 172.30.0.9 proto static",
		"route add blackhole 10.2.0.0/16",
		"route add 10.3.0.0/16 nexthop via 172.30.0.7 nexthop via 172.30.0.8",
		"route add default via 172.30.0.254",
		"-6 addr add fd00:99::1/64 dev eth0 nodad",
		"-6 route add fd00:77::/48 via fd00:99::9",
		// A table counts where a rule looks into it.
		"route add 10.4.0.0/16 via 172.30.0.9 table 100", "rule add from 172.30.0.1 lookup 100",
		"route add 10.5.0.0/16 via 172.30.0.9 table 101",
	} {
		ip(t, args)
	}
	list, err := Prefixes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]Prefix{}
	for _, p := range list {
		have[p.String()] = p
	}
	for text, want := range map[string]Prefix{
		"172.30.0.1/24 dev eth0":                             {Link: "eth0"},
		"192.168.9.7/24 dev eth0":                            {Link: "eth0"},
		"192.168.1.1/24 dev obr0":                            {Link: "obr0", Proto: state.RouteProtocol},
		"fd00:99::1/64 dev eth0":                             {Link: "eth0"},
		"172.30.0.0/24 dev eth0 proto kernel src 172.30.0.1": {Link: "eth0", Proto: 2, Table: 254},
		"192.168.2.0/24 via 172.30.0.2 dev obr0-t onlink proto ovs-gre src 192.168.1.1":                                        {Link: "obr0-t", Proto: state.RouteProtocol, Table: 254},
		"10.1.0.0/16 via 172.30.0.9 dev eth0 proto static":                                                                     {Link: "eth0", Proto: 4, Table: 254},
		"blackhole 10.2.0.0/16 proto boot":                                                                                     {Proto: 3, Table: 254},
		"172.30.0.9 as the next hop of 10.1.0.0/16 via 172.30.0.9 dev eth0 proto static":                                       {Link: "eth0", Proto: 4, Table: 254},
		"172.30.0.254 as the next hop of 0.0.0.0/0 via 172.30.0.254 dev eth0 proto boot":                                       {Link: "eth0", Proto: 3, Table: 254},
		"172.30.0.8 as the next hop of 10.3.0.0/16 proto boot nexthop via 172.30.0.7 dev eth0 nexthop via 172.30.0.8 dev eth0": {Link: "eth0", Proto: 3, Table: 254},
		"10.3.0.0/16 proto boot nexthop via 172.30.0.7 dev eth0 nexthop via 172.30.0.8 dev eth0":                               {Link: "eth0", Proto: 3, Table: 254},
		"fd00:77::/48 via fd00:99::9 dev eth0 proto boot metric 1024":                                                          {Link: "eth0", Proto: 3, Table: 254},
		"10.4.0.0/16 via 172.30.0.9 dev eth0 table 100 proto boot":                                                             {Link: "eth0", Proto: 3, Table: 100},
		"fd00:2::/64 via fe80::858:acff:fe1e:2 dev obr0-t proto ovs-gre src fd00:1::1 metric 1024":                             {Link: "obr0-t", Proto: state.RouteProtocol, Table: 254},
	} {
		p, ok := have[text]
		if !ok || p.Link != want.Link || p.Proto != want.Proto || p.Table != want.Table {
			t.Errorf("%s: %+v", text, p)
		}
	}
	if p := have["192.168.1.1/24 dev obr0"]; p.Prefix != prefixes("192.168.1.0/24")[0] || p.Addr != gateway || p.Src.IsValid() {
		t.Errorf("an address: %+v", p)
	}
	if p := have["192.168.2.0/24 via 172.30.0.2 dev obr0-t onlink proto ovs-gre src 192.168.1.1"]; p.Prefix != prefixes("192.168.2.0/24")[0] || p.Src != gateway || p.Addr.IsValid() {
		t.Errorf("a route: %+v", p)
	}
	for _, p := range list {
		if p.Bits() == 0 || p.Link == "lo" || strings.HasPrefix(p.Prefix.String(), "fe80") || p.Prefix == prefixes("10.5.0.0/16")[0] {
			t.Errorf("%s is of no use", p)
		}
	}
}
