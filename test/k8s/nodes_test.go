package k8s

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// gateways are the first addresses of a node's pod subnets: what it has of the
// pods' network before there is a pod.
func (p peer) gateways() []netip.Addr {
	return []netip.Addr{
		netip.MustParsePrefix(p.subnet4).Addr().Next(),
		netip.MustParsePrefix(p.subnet6).Addr().Next(),
	}
}

// reached waits until a new node's gateways answer all other nodes, and then
// lets the pods there and a new pod here fetch from each other. It returns how
// long the former took.
func (c *cluster) reached(t *testing.T, n *node) time.Duration {
	t.Helper()
	p, begin := n.peer(t), time.Now()
	for _, other := range c.nodes {
		if other == n {
			continue
		}
		testnet.Eventually(t, patience, func() error {
			lost, err := cnitest.Unreached(other.Host, p.gateways()...)
			if err == nil && len(lost) > 0 {
				err = fmt.Errorf("%s does not reach %s at %v", other.Name, n.Name, lost)
			}
			return err
		})
	}
	took := time.Since(begin)
	name := "on-" + n.Name
	c.create(t, on(n, name, server(manifest{"app": name}, nil, nil)))
	here := c.pods(t, "app="+name, 1)[0]
	for _, other := range c.pods(t, "app=web", 3) {
		other.fetch(t, name, here.urls()...)
		here.fetch(t, other.name, other.urls()...)
	}
	return took
}

// testJoin lets a fourth host join.
func (c *cluster) testJoin(t *testing.T) string {
	begin := time.Now()
	n := c.join(c.t, c.lab.Hosts[3])
	n.ready(t, patience)
	ready := time.Since(begin)
	took := c.reached(t, n)
	bound(t, "reaching the new node", took, 5*time.Second)
	return fmt.Sprintf("ready after %.1f s, reached from everywhere %.1f s later", ready.Seconds(), took.Seconds())
}

// testReuse deletes the fourth node, and gives its pod subnets to the fifth at
// once. The host that was the fourth node goes on as if nothing had happened.
func (c *cluster) testReuse(t *testing.T) string {
	old := c.nodes[3]
	was := old.peer(t)
	old.kubelet.stop(t)
	h := c.lab.Hosts[4]
	c.kubectl(t, "delete", "pod", "on-"+old.Name, "--force", "--grace-period=0")
	c.kubectl(t, "delete", "node", old.Name)
	c.create(t, manifest{"apiVersion": "v1", "kind": "Node", "metadata": manifest{"name": h.Name},
		"spec": manifest{"podCIDR": was.subnet4, "podCIDRs": []string{was.subnet4, was.subnet6}}})
	n := c.join(c.t, h)
	c.nodes = append(c.nodes[:3], n)
	n.ready(t, patience)
	took := c.reached(t, n)
	bound(t, "reaching the new node", took, 5*time.Second)
	if now := n.peer(t); now.subnet4 != was.subnet4 || now.subnet6 != was.subnet6 {
		t.Errorf("the new node has pod subnets %v, not those of %v", now, was)
	}
	// The subnets are another's now.
	gone := peer{name: was.name, addr: was.addr, mac: was.mac, subnet4: "nothing", subnet6: "nothing"}
	for _, other := range c.nodes[:3] {
		other.clean(t, gone)
	}
	return fmt.Sprintf("%s goes to the new node, %.1f s after it is ready", was.subnet4, took.Seconds())
}

// testLeave deletes a node while the first node has no agent, which must find
// out about it later.
func (c *cluster) testLeave(t *testing.T) string {
	first, last := c.nodes[0], c.nodes[3]
	gone := last.peer(t)
	first.kubelet.stop(t)
	first.killAgent(t)
	c.kubectl(t, "delete", "pod", "on-"+last.Name, "--force", "--grace-period=0")
	last.kubelet.stop(t)
	c.kubectl(t, "delete", "node", last.Name)
	c.nodes = c.nodes[:3]
	took := max(c.nodes[1].clean(t, gone), c.nodes[2].clean(t, gone))
	if lines, err := first.traces(gone); err != nil || len(lines) == 0 {
		t.Errorf("the node without an agent lost its peer: %v", err)
	}
	first.kubelet.start(t)
	running, _ := first.agentBack(t)
	first.clean(t, gone)
	late := time.Since(running)
	bound(t, "forgetting the node", late, 10*time.Second)
	return fmt.Sprintf("nothing of it elsewhere after %.1f s; where the agent was down, %.1f s after it is back", took.Seconds(), late.Seconds())
}

// unanswered is what a host does not get from URLs.
func unanswered(from testnet.Runner, seconds int, urls ...string) (string, error) {
	return from.Output(context.Background(), "busybox", "sh", "-c", get(seconds, urls...)+" | grep '^no answer' || :")
}
