package agent

import (
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// fanTemplate writes a template whose nodes is no list.
func fanTemplate(t *testing.T, l *testnet.Lab) {
	t.Helper()
	for _, h := range l.Hosts {
		h.WriteFile(t, template, strings.Replace(conf(t, l), `"type": "ovs-gre"`,
			`"type": "ovs-gre", "nodes": {"underlay": "172.16.0.0/16", "containers": "10.0.0.0/8"}`, 1))
	}
}

// TestWithoutList: an agent whose template lists no nodes needs nobody who does. It
// puts the flows back when they are lost.
func TestWithoutList(t *testing.T) {
	l := lab(t, 2, 0)
	fanTemplate(t, l)
	for _, h := range l.Hosts {
		command(t, h, "run", "--template", template, "--listen", "127.0.0.1:9178", "--resync", "1h").ready(t)
	}
	cs := cnitest.AddAll(t, l, network)
	cnitest.AllReach(t, cs)
	h := l.Hosts[0]
	h.Shell(t, "ip route del 10.0.0.0/8; ovs-ofctl del-flows obr0-t")
	if err := h.KillVswitchd(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.StartVswitchd(t.Context()); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, longest, func() error {
		if lost, err := cnitest.Unreached(cs[0], cs[1].Addrs()...); err != nil || len(lost) > 0 {
			return fmt.Errorf("no answer from %v, %w", lost, err)
		}
		return nil
	})
	if raw := h.Shell(t, "cat "+conflist); strings.Contains(raw, "nodesFile") || strings.Contains(raw, `"node"`) {
		t.Errorf("the conflist names nodes: %s", raw)
	}
}

// TestListBesideFan: where somebody does list the nodes, as Kubernetes, this host's must
// have the subnet that its address makes.
func TestListBesideFan(t *testing.T) {
	l := lab(t, 2, 0)
	fanTemplate(t, l)
	of := func(subnets string) []cnitest.Conf {
		return []cnitest.Conf{
			{"name": "a", "address": l.Hosts[0].Addr4.String(), "subnets": []string{"10.32.100.0/24"}},
			{"name": "b", "address": l.Hosts[1].Addr4.String(), "subnets": []string{subnets}},
		}
	}
	list(t, l, l.Hosts, of("10.244.1.0/24"))
	a, b := start(t, l.Hosts[0], "--node", "a"), start(t, l.Hosts[1], "--node", "b")
	a.ready(t)
	const why = "its container subnets [10.244.1.0/24] are not [10.32.101.0/24], as nodes has it for its address 172.16.32.101"
	testnet.Eventually(t, longest, func() error {
		if body, _ := b.get("/readyz"); !strings.Contains(body, "this host's node b: "+why) {
			return fmt.Errorf("not yet: %s", body)
		}
		if !strings.Contains(a.said(), why) {
			return fmt.Errorf("the other does not tell: %s", a.said())
		}
		return nil
	})
	if out := l.Hosts[1].Shell(t, "ls /etc/cni/net.d 2>/dev/null || :; ovs-vsctl list-br"); strings.Contains(out, "conflist") || strings.Contains(out, "obr0") {
		t.Errorf("refused, and made: %s", out)
	}
	list(t, l, l.Hosts, of("10.32.101.0/24"))
	b.ready(t)
	cnitest.AllReach(t, cnitest.AddAll(t, l, network))
	if raw := l.Hosts[1].Shell(t, "cat "+conflist); !strings.Contains(raw, `"node": "172.16.32.101"`) {
		t.Errorf("the conflist does not say which address counts: %s", raw)
	}
}
