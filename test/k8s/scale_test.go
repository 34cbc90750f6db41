package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

const (
	many    = 1000 // Nodes beside the real ones
	changes = 5    // times that one of them is changed
)

// testScale makes a thousand Nodes without a kubelet, and looks at what they
// cost a real node's agent.
func (c *cluster) testScale(t *testing.T) string {
	items := make([]manifest, 0, many)
	for i := range many {
		items = append(items, manifest{"apiVersion": "v1", "kind": "Node", "metadata": manifest{
			"name":        fmt.Sprintf("fake%d", i),
			"labels":      manifest{"fake": "true"},
			"annotations": manifest{"ovs-gre/address": fmt.Sprintf("172.20.%d.%d", i/250, i%250+1)},
		}})
	}
	raw, err := json.Marshal(manifest{"apiVersion": "v1", "kind": "List", "items": items})
	if err != nil {
		t.Fatal(err)
	}
	n := c.nodes[0]
	before := n.usage(t)
	begin := time.Now()
	if _, err := c.input(string(raw), "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	created := time.Since(begin)
	for _, at := range c.nodes {
		at.peers(t, many+2)
	}
	stands := time.Since(begin)
	after := n.usage(t)
	fmt.Printf("k8s: %d nodes: created in %.1f s, all host state stands %.1f s after the first; agent: %.0f MB (%.0f before), %.1f s of CPU for it\n",
		many, created.Seconds(), stands.Seconds(), after.memory, before.memory, after.cpu-before.cpu)

	var took []time.Duration
	for i := range changes {
		c.idle(t)
		took = append(took, c.change(t, fmt.Sprintf("172.20.200.%d", i+1)))
	}
	slices.Sort(took)
	bound(t, "one Node's change", took[len(took)/2], time.Second)
	n.killAgent(t)
	running, ready := n.agentBack(t)
	again := n.usage(t)
	fmt.Printf("k8s: %d nodes: a new agent is ready %.1f s after its start; %.0f MB, %.1f s of CPU\n", many, ready.Sub(running).Seconds(), again.memory, again.cpu)
	c.pairs(t)
	c.removeFakes(t)
	return fmt.Sprintf("one Node's change is applied everywhere in %.2f s, at worst %.2f", took[len(took)/2].Seconds(), took[len(took)-1].Seconds())
}

// idle waits until no agent has anything to do.
func (c *cluster) idle(t testing.TB) {
	t.Helper()
	was, since := "", time.Now()
	testnet.Eventually(t, patience, func() error {
		now := ""
		for _, n := range c.nodes {
			passes, err := n.Output(context.Background(), "sh", "-c", "busybox wget -qO- http://127.0.0.1:9178/metrics | grep passes_total")
			if err != nil {
				return err
			}
			now += n.Name + ": " + passes
		}
		if now != was {
			was, since = now, time.Now()
		}
		if time.Since(since) < 2*time.Second {
			return fmt.Errorf("agents go on: %s", now)
		}
		return nil
	})
}

// change gives one Node another address, and waits until every node has its
// route there, which is the last of what changes. The tunnel, which costs
// ovs-vsctl more to find than the agent to make, is looked for after that.
func (c *cluster) change(t *testing.T, addr string) time.Duration {
	t.Helper()
	c.kubectl(t, "annotate", "node", "fake500", "--overwrite", "ovs-gre/address="+addr)
	begin := time.Now()
	for _, n := range c.nodes {
		testnet.Eventually(t, patience, func() error {
			out, err := n.Output(context.Background(), "ip", "route", "show", "proto", "121", "via", addr)
			if err == nil && strings.TrimSpace(out) == "" {
				err = fmt.Errorf("%s: no route via %s", n.Name, addr)
			}
			return err
		})
	}
	took := time.Since(begin)
	for _, n := range c.nodes {
		if n.Run(t, "ovs-vsctl", "--timeout=20", "--no-headings", "--columns=name", "find", "interface", "options:remote_ip="+addr) == "" {
			t.Errorf("%s: no tunnel to %s", n.Name, addr)
		}
	}
	return took
}

// removeFakes deletes the Nodes that have no host, and waits until no node has
// anything of them.
func (c *cluster) removeFakes(t *testing.T) {
	t.Helper()
	begin := time.Now()
	c.kubectl(t, "delete", "--raw", "/api/v1/nodes?labelSelector=fake%3Dtrue")
	for _, n := range c.nodes {
		n.peers(t, 2)
	}
	fmt.Printf("k8s: %d nodes: deleted at once, nothing of them left after %.1f s\n", many, time.Since(begin).Seconds())
}

// peers waits until a node has so many tunnels, and routes to as many subnets
// of both families.
func (n *node) peers(t testing.TB, want int) {
	t.Helper()
	const count = `
echo $(ovs-vsctl --timeout=60 --no-headings --columns=name find interface type=gre | grep -c .) \
	$(ip route show proto 121 | wc -l) $(ip -6 route show proto 121 | wc -l)`
	testnet.Eventually(t, patience, func() error {
		out, err := n.Output(context.Background(), "sh", "-c", count)
		if wanted := fmt.Sprintf("%d %d %d\n", want, want, want); err == nil && out != wanted {
			err = fmt.Errorf("%s has tunnels, routes, IPv6 routes: %s", n.Name, out)
		}
		return err
	})
}

// usage is what a process has used: megabytes now, seconds of CPU since its start.
type usage struct{ memory, cpu float64 }

// usage is that of the node's agent, by its own account.
func (n *node) usage(t testing.TB) usage {
	t.Helper()
	var u usage
	for line := range strings.Lines(n.Run(t, "busybox", "wget", "-qO-", "http://127.0.0.1:9178/metrics")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		number, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "process_resident_memory_bytes":
			u.memory = number / 1e6
		case "process_cpu_seconds_total":
			u.cpu = number
		}
	}
	if u.memory == 0 || u.cpu == 0 {
		t.Error("the agent does not tell what it uses")
	}
	return u
}
