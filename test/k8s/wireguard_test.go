package k8s

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// encrypted are the manifests with what the chart makes of network.tunnel.type
// wireguard, and the directory in which the agent finds wireguard-go.
func encrypted(t *testing.T, text string) string {
	t.Helper()
	for _, change := range [][2]string{
		{`"type": "gre"`, `"type": "wireguard"`},
		{"verbs: [get, list, watch]", "verbs: [get, list, watch, patch]"},
		{"            - {name: run, mountPath: /run/ovs-gre}\n", "            - {name: run, mountPath: /run/ovs-gre}\n            - {name: wireguard, mountPath: /run/wireguard}\n"},
		{"        - name: run\n", "        - name: wireguard\n          hostPath: {path: /run/wireguard, type: DirectoryOrCreate}\n        - name: run\n"},
	} {
		if strings.Count(text, change[0]) != 1 {
			t.Fatalf("no place for %q in the manifests", change[1])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	return text
}

// podsInClear is tcpdump's filter for what the pods' packets are without WireGuard.
var podsInClear = "net " + strings.ReplaceAll(podRanges, ",", " or net ") + " or ip proto 47"

// TestWireGuard: the agents tell each other their keys by the Nodes, pods talk,
// nothing of theirs is in clear, and a key is changed.
func TestWireGuard(t *testing.T) {
	lab := testnet.New(t, testnet.Options{Hosts: 2})
	c := newCluster(t, lab, options{proxy: "nftables"})
	text := encrypted(t, c.manifests(t, "ovs-gre.yaml"))
	c.images = append(images(t, c.dir), agentImage(t))
	for _, h := range lab.Hosts {
		c.join(t, h)
		cnitest.StartWireGuard(t, h, "pods", "obr0")
	}
	key := func(n *node) string {
		return c.kubectl(t, "get", "node", n.Name, "-o", `jsonpath={.metadata.annotations.ovs-gre/wireguard-key}`)
	}
	c.step(t, "encrypted", func(t *testing.T) string {
		wire := lab.Capture(t, podsInClear)
		begin := time.Now()
		c.apply(t, text)
		for _, n := range c.nodes {
			n.ready(t, patience)
		}
		took := time.Since(begin)
		c.create(t, deployment("web", 2, server(manifest{"app": "web"}, nil, apart(manifest{"app": "web"}))))
		c.pods(t, "app=web", 2)
		c.pairs(t)
		if lines := wire.Stop(t); len(lines) > 0 {
			t.Errorf("in clear on the underlay: %s", lines[0])
		}
		return fmt.Sprintf("nodes ready after %.1f s, nothing in clear", took.Seconds())
	})
	c.step(t, "another key", func(t *testing.T) string {
		n := c.nodes[0]
		was := key(n)
		n.Run(t, cnitest.BinDir(t)+"/ovs-grectl", "key", "--next")
		testnet.Eventually(t, patience, func() error {
			if is := key(n); is == was || is == "" {
				return fmt.Errorf("the Node still has the key %q", is)
			}
			return nil
		})
		c.pairs(t)
		return "published by the agent, taken by all"
	})
}
