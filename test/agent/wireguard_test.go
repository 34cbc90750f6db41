package agent

import (
	"maps"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestWireGuardRestarts: the agent, OVS and the host begin anew, one after the
// other, and not one packet of a container passes the underlay in clear.
func TestWireGuardRestarts(t *testing.T) {
	l := lab(t, 3, 3)
	keyed := strings.Replace(conf(t, l), `"type": "ovs-gre"`, `"type": "ovs-gre", "tunnel": {"type": "wireguard"}`, 1)
	keys := map[string]string{}
	for _, h := range l.Hosts {
		h.WriteFile(t, template, keyed)
		// The conflist that the agent will write, for ovs-grectl key alone.
		h.WriteFile(t, conflist, strings.Replace(keyed, `"type": "ovs-gre"`, `"type": "ovs-gre", "nodesFile": "`+nodesFile+`"`, 1))
		cnitest.StartWireGuard(t, h, network, "obr0")
		maps.Copy(keys, cnitest.Keys(t, []*testnet.Host{h}))
		h.Shell(t, "rm "+conflist)
	}
	list(t, l, l.Hosts, cnitest.Network{}.Keyed(l, keys))
	wire := l.Capture(t, "net 192.168.0.0/16 or net fd92::/16 or ip proto 47 or ip6 proto 47")
	agents := startAll(t, l)
	cs := cnitest.AddAll(t, l, network)
	cnitest.AllReach(t, cs)
	last := l.Hosts[2]

	agents[2].end() // without a warning
	cnitest.AllReach(t, cs)
	agents[2] = start(t, last)
	agents[2].ready(t)
	cnitest.AllReach(t, cs)

	if err := last.StopOVS(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := last.StartOVS(t.Context()); err != nil {
		t.Fatal(err)
	}
	agents[2].ready(t)
	testnet.Eventually(t, longest, func() error { return cs[2].Call("check") })
	cnitest.AllReach(t, cs)

	agents[2].end()
	if err := last.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	cnitest.StartWireGuard(t, last, network, "obr0")
	agents[2] = start(t, last)
	agents[2].ready(t)
	cs[2] = cnitest.Add(t, last, network, "again")
	cnitest.AllReach(t, cs)
	if again := cnitest.Keys(t, l.Hosts[2:]); again[last.Name] != keys[last.Name] {
		t.Error("the host has another key after a reboot")
	}
	if lines := wire.Stop(t); len(lines) > 0 {
		t.Errorf("%d packets in clear on the underlay, the first: %s", len(lines), lines[0])
	}
}
