package firewall

import (
	"fmt"
	"net/netip"
	"testing"

	"ovs-gre-cni/pkg/state"
)

func large(n int) state.Masquerade {
	m := state.Masquerade{Network: "blue", Sources: "10.1.0.0/24"}
	list := make([]netip.Prefix, n)
	for i := range list {
		list[i] = netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
	}
	m.Excluded = joinCIDRs(list)
	return m
}

func BenchmarkObserve(b *testing.B) {
	for _, bb := range []struct {
		name, setup string
		want        state.Set
	}{
		{"nothing", "true", nil},
		{"masquerade", "true", wanted(blue)},
		{"masquerade of 500", "true", wanted(large(500))},
		{"masquerade of 10000", "true", wanted(large(10000))},
		{"masquerade, Docker", docker, wanted(append(blueAccepts, blue)...)},
		{"masquerade, iptables-legacy", "iptables-legacy -P FORWARD DROP", wanted(append(blueAccepts, blue)...)},
		{"masquerade, 10000 chains", "(echo table ip kube {; seq -f 'chain svc%.0f { }' 10000; echo }) | nft -f -", wanted(append(blueAccepts, blue)...)},
		{"masquerade, 10000 rules in FORWARD", "(echo '*filter'; echo ':FORWARD DROP'; seq -f '-A FORWARD -s 10.250.%.0f.0/24 -i eth7 -j ACCEPT' 250 | while read -r l; do for i in $(seq 40); do echo \"$l\"; done; done; echo COMMIT) | iptables-restore", wanted(append(blueAccepts, blue)...)},
		{"masquerade, 10000 rules elsewhere", "iptables -P FORWARD DROP; (echo '*filter'; echo ':other -'; seq -f '-A other -s 10.250.%.0f.0/24 -i eth7 -j ACCEPT' 250 | while read -r l; do for i in $(seq 40); do echo \"$l\"; done; done; echo COMMIT) | iptables-restore -n", wanted(append(blueAccepts, blue)...)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			newNetns(b, "nft", "iptables")
			sh(b, bb.setup)
			be := NewBackend("blue")
			ensure(b, be, bb.want)
			for b.Loop() {
				if _, err := be.Observe(b.Context(), bb.want); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{2, 500, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			newNetns(b)
			be, changes := NewBackend("blue"), []state.Change{{New: large(n)}}
			for b.Loop() {
				if err := be.Apply(b.Context(), changes); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
