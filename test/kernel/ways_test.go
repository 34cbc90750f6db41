// Package kernel is what must hold on OVS's kernel datapath. Its tests run in
// the VM that test/kernel/run boots, and on whatever datapath this machine has.
package kernel

import (
	"fmt"
	"os"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

func lab(t *testing.T, hosts int) *testnet.Lab {
	t.Helper()
	return testnet.New(t, testnet.Options{Hosts: hosts, PluginDir: cnitest.BinDir(t)})
}

// report prints a line of the summary.
func report(t *testing.T, l *testnet.Lab, what string) {
	t.Helper()
	verdict := "ok"
	if t.Failed() {
		verdict = "FAILED"
	}
	fmt.Printf("kernel: %-7s %-52s %s\n", l.Datapath, what, verdict)
}

// sabotage breaks the kind of tunnel that OVSGRE_BREAK names, so that the suite
// can show that it would notice.
func sabotage(t *testing.T, l *testnet.Lab) {
	t.Helper()
	if typ := os.Getenv("OVSGRE_BREAK"); typ != "" {
		l.Hosts[0].Shell(t, "for i in $(ovs-vsctl --bare --columns=name find interface type="+typ+"); do ovs-vsctl set interface $i options:remote_ip=192.0.2.1; done")
	}
}

// TestWays pings all pairs of three hosts in every segment, by every tunnel,
// over both families of underlay, and in every mode of route-sync.
func TestWays(t *testing.T) {
	l := lab(t, 3)
	try := func(what string, n cnitest.Network) {
		t.Run(what, func(t *testing.T) {
			defer func() { report(t, l, what) }()
			n.Install(t, l)
			cs := cnitest.AddAll(t, l, "ovsnet")
			sabotage(t, l)
			cnitest.AllReach(t, cs)
			if err := cs[0].Call("check"); err != nil {
				t.Errorf("CHECK: %v", err)
			}
		})
	}
	for _, segment := range []string{"host", "mesh", "container"} {
		for _, tunnel := range []string{"gre", "vxlan", "geneve"} {
			for _, v6 := range []bool{false, true} {
				for _, mode := range []string{"tunnel", "direct", "auto"} {
					n := cnitest.Network{V6: v6, OVSGRE: cnitest.Conf{"segment": segment, "tunnel": cnitest.Conf{"type": tunnel}}, RouteSync: cnitest.Conf{"mode": mode}}
					if mode == "direct" && !v6 { // IPv6 needs an IPv6 next hop
						n.Subnets = func(i int) []string { return cnitest.Subnets(i)[:1] }
					}
					try(fmt.Sprintf("segment %s, %s over IPv%s, mode %s", segment, tunnel, map[bool]string{false: "4", true: "6"}[v6], mode), n)
				}
			}
		}
	}
	try("GRE, masquerade and key", cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true, "tunnel": cnitest.Conf{"key": 7}}})
	try("Geneve, key and checksum", cnitest.Network{OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"type": "geneve", "key": 7, "csum": true}}})
}
