package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestMesh: agents alone make a network of three hosts, and containers come
// and go without them.
func TestMesh(t *testing.T) {
	l := lab(t, 3, 3)
	agents := startAll(t, l)
	cs := cnitest.AddAll(t, l, network)
	cnitest.AllReach(t, cs)
	var file struct {
		Plugins []cnitest.Conf `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(l.Hosts[0].Run(t, "cat", conflist)), &file); err != nil {
		t.Fatal(err)
	}
	if p := file.Plugins[0]; p["nodesFile"] != store || p["node"] != nil {
		t.Errorf("the conflist says nodesFile %v, node %v", p["nodesFile"], p["node"])
	}
	for i, a := range agents {
		if i == 0 {
			a.stop(t)
		} else {
			a.end()
		}
	}
	late := cnitest.Add(t, l.Hosts[1], network, "late")
	cnitest.AllReach(t, append(cs[:1:1], late))
	if err := late.Call("del"); err != nil {
		t.Error(err)
	}
	cnitest.AllReach(t, cs)
}

// TestPeers: nodes come and go by the file alone, also while an agent is down,
// and a subnet goes to the node that has it now.
func TestPeers(t *testing.T) {
	l := lab(t, 3, 2)
	h1, h3 := l.Hosts[0], l.Hosts[2]
	nodes := all(l)
	a1, a2 := start(t, h1), start(t, l.Hosts[1])
	a1.ready(t)
	a2.ready(t)
	a3 := start(t, h3) // is no node yet
	testnet.Eventually(t, longest, func() error {
		if body, code := a3.get("/readyz"); code != 503 || !strings.Contains(body, "no entry for this host") {
			return fmt.Errorf("readyz: %d %s", code, body)
		}
		return nil
	})
	if out := h3.Shell(t, "ls /etc/cni/net.d 2>/dev/null || true"); out != "" {
		t.Errorf("a host that is no node has %s", out)
	}
	began := time.Now()
	list(t, l, l.Hosts, nodes)
	a3.ready(t)
	standing(t, h1, h3.Addr4.String(), true)
	t.Logf("a node that came is standing after %s", time.Since(began).Round(time.Millisecond))
	c1, c3 := cnitest.Add(t, h1, network, "c1"), cnitest.Add(t, h3, network, "c3")
	cnitest.AllReach(t, []*cnitest.Container{c1, c3})

	// The node goes while the first agent is down.
	a1.end()
	list(t, l, l.Hosts[:2], nodes[:2])
	standing(t, l.Hosts[1], h3.Addr4.String(), false)
	standing(t, h1, h3.Addr4.String(), true)
	began = time.Now()
	a1 = start(t, h1)
	standing(t, h1, h3.Addr4.String(), false)
	t.Logf("a node that went while the agent was down is gone %s after its start", time.Since(began).Round(time.Millisecond))

	// Its subnets come back on a node with another address, at once.
	other := cnitest.Conf{"name": "other", "address": l.Hosts[1].Addr4.String(), "subnets": nodes[2]["subnets"]}
	list(t, l, l.Hosts[:1], []cnitest.Conf{nodes[0], nodes[2]})
	standing(t, h1, h3.Addr4.String(), true)
	list(t, l, l.Hosts[:1], []cnitest.Conf{nodes[0], other})
	standing(t, h1, h3.Addr4.String(), false)
	for _, ip := range c3.Addrs() {
		via := l.Hosts[1].Addr4.String()
		if ip.Is6() {
			via = "fe80::858:acff:fe10:2065" // of the MAC address that follows from it
		}
		if out := h1.Run(t, "ip", "route", "get", ip.String()); !strings.Contains(out, "via "+via+" dev obr0-t") {
			t.Errorf("the reused subnet goes by %s, want %s", out, via)
		}
	}
	a1.ready(t)
}

// standing waits until a host has all that leads to a peer, or nothing.
func standing(t testing.TB, h *testnet.Host, peer string, want bool) {
	t.Helper()
	testnet.Eventually(t, longest, func() error {
		out, err := h.Output(context.Background(), "sh", "-c", `
			ovs-vsctl --bare --columns=name find interface options:remote_ip="$0" | sed 's/^/tunnel /'
			ip route show proto 121 | grep " via $0 " | sed 's/^/route /'
			ip neigh show "$0" nud permanent | sed 's/^/neighbour /'`, peer)
		if err != nil {
			return err
		}
		for _, what := range []string{"tunnel ", "route ", "neighbour "} {
			if strings.Contains(out, what) != want {
				return fmt.Errorf("%s: to %s there is, want %t for all:\n%s", h.Name, peer, want, out)
			}
		}
		return nil
	})
}

// TestUnrouted: a node that comes and cannot be reached is left out, and does
// not keep others from coming; one that is there stays when its route goes.
func TestUnrouted(t *testing.T) {
	l := lab(t, 1, 1)
	h := l.Hosts[0]
	h.Shell(t, "ip route add unreachable 10.200.0.2/32")
	list(t, l, l.Hosts, append(all(l), strangers(3)...))
	a := start(t, h)
	a.ready(t)
	standing(t, h, "10.200.0.1", true)
	standing(t, h, "10.200.0.2", false)
	standing(t, h, "10.200.0.3", true)
	if said := a.said(); !strings.Contains(said, `msg="node left out" node=stranger0001 why="this host has no route to its address 10.200.0.2"`) {
		t.Errorf("it said\n%s", said)
	}
	if n := a.metric(t, "ovs_gre_agent_nodes_left_out"); n != 1 {
		t.Errorf("%.0f nodes are left out", n)
	}
	h.Shell(t, "ip route del unreachable 10.200.0.2/32; ip route add unreachable 10.200.0.1/32")
	list(t, l, l.Hosts, append(all(l), strangers(4)...))
	standing(t, h, "10.200.0.4", true)
	standing(t, h, "10.200.0.1", true)
	a.ready(t)
	h.Shell(t, "ip route del unreachable 10.200.0.1/32")
	standing(t, h, "10.200.0.2", true)
}

// TestNode: where its address does not tell which node a host is, the agent
// does, and tells the plugins.
func TestNode(t *testing.T) {
	l := lab(t, 1, 1)
	h := l.Hosts[0]
	list(t, l, l.Hosts, []cnitest.Conf{{"name": "behind-nat", "address": "192.0.2.77", "subnets": cnitest.Subnets(0)}})
	start(t, h, "--node", "behind-nat").ready(t)
	if out := h.Run(t, "cat", conflist); !strings.Contains(out, `"node": "behind-nat"`) {
		t.Errorf("the conflist is\n%s", out)
	}
	c := cnitest.Add(t, h, network, "c")
	if lost, err := cnitest.Unreached(h, c.Addrs()...); err != nil || len(lost) > 0 {
		t.Errorf("no answer from %v %v", lost, err)
	}
}

// TestLost: a host whose node is taken from the list is no more ready, and what
// it has is still kept as it was: its containers may be there.
func TestLost(t *testing.T) {
	l := lab(t, 2, 2)
	h := l.Hosts[0]
	a := startAll(t, l)[0]
	before := host(t, h)
	list(t, l, l.Hosts[:1], all(l)[1:])
	testnet.Eventually(t, longest, func() error {
		if body, code := a.get("/readyz"); code != 503 || !strings.Contains(body, "no entry for this host") {
			return fmt.Errorf("readyz: %d %s", code, body)
		}
		return nil
	})
	h.Shell(t, `ip route del $(ip route show proto 121 | cut -d" " -f1)`)
	testnet.Eventually(t, longest, func() error {
		if after := host(t, h); after != before {
			return fmt.Errorf("before\n%s\nafter\n%s", before, after)
		}
		return nil
	})
	list(t, l, l.Hosts[:1], all(l))
	a.ready(t)
}
