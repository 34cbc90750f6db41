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
	t.Parallel()
	l := lab(t, 3)
	modes := []string{"tunnel", "direct", "auto"}
	for _, segment := range []string{"host", "mesh", "container"} {
		for _, tunnel := range []string{"gre", "vxlan", "geneve"} {
			for _, v6 := range []bool{false, true} {
				ways(t, l, fmt.Sprintf("segment %s, %s over IPv%s", segment, tunnel, map[bool]string{false: "4", true: "6"}[v6]),
					cnitest.Network{V6: v6, OVSGRE: cnitest.Conf{"segment": segment, "tunnel": cnitest.Conf{"type": tunnel}}}, modes)
			}
		}
	}
	ways(t, l, "GRE, masquerade and key", cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true, "tunnel": cnitest.Conf{"key": 7}}}, modes[:1])
	ways(t, l, "Geneve, key and checksum", cnitest.Network{OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"type": "geneve", "key": 7, "csum": true}}}, modes[:1])
}

// ways attaches a container on each host and pings in one mode after the other.
// The change is route-sync's ADD, as the next container would bring it.
func ways(t *testing.T, l *testnet.Lab, what string, n cnitest.Network, modes []string) {
	t.Run(what, func(t *testing.T) {
		n.Install(t, l)
		cs := cnitest.AddAll(t, l, "ovsnet")
		sabotage(t, l)
		for _, mode := range modes {
			t.Run("mode "+mode, func(t *testing.T) {
				defer func() { report(t, l, what+", mode "+mode) }()
				n, reached := n, cs
				n.RouteSync = cnitest.Conf{"mode": mode}
				if mode == "direct" && !n.V6 { // IPv6 needs an IPv6 next hop
					only4 := cnitest.Network{Subnets: func(i int) []string { return cnitest.Subnets(i)[:1] }}
					n.RouteSync["nodes"], reached = only4.NodeList(l), first(cs)
				}
				if mode != "tunnel" {
					n.Install(t, l)
					sync(t, cs, n.Conflist(l))
				}
				cnitest.AllReach(t, reached)
				if err := cs[0].Call("check"); err != nil {
					t.Errorf("CHECK: %v", err)
				}
			})
		}
	})
}

// first are the containers with none but the first of their addresses, IPv4.
func first(cs []*cnitest.Container) []*cnitest.Container {
	var list []*cnitest.Container
	for _, c := range cs {
		d, res := *c, *c.Result
		res.IPs = res.IPs[:1]
		d.Result = &res
		list = append(list, &d)
	}
	return list
}

// sync calls route-sync's ADD on every host.
func sync(t *testing.T, cs []*cnitest.Container, conflist string) {
	t.Helper()
	for _, c := range cs {
		conf := cnitest.PluginConf(t, conflist, "route-sync", cnitest.Conf{"prevResult": c.Result})
		if _, err := cnitest.Plugin(c.Host, "route-sync", "ADD", conf, "CNI_CONTAINERID="+c.Name, "CNI_NETNS="+c.Path, "CNI_IFNAME="+c.IfName); err != nil {
			t.Fatalf("%s: route-sync ADD: %v", c.Host.Name, err)
		}
	}
}
