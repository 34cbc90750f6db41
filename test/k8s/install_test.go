package k8s

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// project is a file of the checkout.
func project(t testing.TB, name string) string {
	t.Helper()
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, name)
}

// agentImage is the image that "make image" has written.
func agentImage(t testing.TB) string {
	t.Helper()
	file := project(t, "bin/ovs-gre-image.tar")
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%v: make image", err)
	}
	return file
}

// manifests are those of deploy/kubernetes, as they are shipped but for the
// datapath where the kernel has none for Open vSwitch.
func (c *cluster) manifests(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile(project(t, filepath.Join("deploy/kubernetes", name)))
	if err != nil {
		t.Fatal(err)
	}
	if c.lab.Datapath != testnet.DatapathNetdev {
		return string(raw)
	}
	const segment = `"segment": "container",`
	if strings.Count(string(raw), segment) != 1 {
		t.Fatalf("no place for a datapathType in %s", name)
	}
	return strings.Replace(string(raw), segment, segment+` "datapathType": "netdev",`, 1)
}

// ready waits until a node is.
func (n *node) ready(t testing.TB, within time.Duration) {
	t.Helper()
	n.c.wait(t, within, "True", "node", n.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
}

// testInstall applies the manifests to nodes that wait for a network.
func (c *cluster) testInstall(t *testing.T) string {
	for _, n := range c.nodes {
		c.wait(t, patience, "False", "node", n.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	}
	begin := time.Now()
	c.apply(t, c.manifests(t, "ovs-gre.yaml"))
	for _, n := range c.nodes {
		n.ready(t, patience)
	}
	took := time.Since(begin)
	c.kubectl(t, "-n", "kube-system", "rollout", "status", "daemonset/ovs-gre", "--timeout=120s")
	return fmt.Sprintf("%d nodes ready %.1f s after kubectl apply", len(c.nodes), took.Seconds())
}
