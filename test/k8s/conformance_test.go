package k8s

import (
	"fmt"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

// conformanceCount is how many tests of Kubernetes 1.36 are of its networking
// and of its conformance.
const conformanceCount = 47

const conformance = `\[sig-network\].*\[Conformance\]`

// granular are tests in which pods reach pods on all nodes.
const granular = `Granular Checks: Pods should function for intra-pod communication: http \[NodeConformance\]`

func newLab(t *testing.T) *testnet.Lab {
	t.Helper()
	return testnet.New(t, testnet.Options{Hosts: 3})
}

// TestConformance runs Kubernetes' own network conformance on the manifests of
// deploy/kubernetes, with kube-proxy in each mode. With the tunnels cut it must
// fail.
func TestConformance(t *testing.T) {
	for _, proxy := range []string{"nftables", "iptables"} {
		t.Run(proxy, func(t *testing.T) {
			c := newWhole(t, proxy)
			specs := c.e2e(t, "conformance-"+proxy, run{focus: conformance, within: time.Hour})
			tell(specs)
			n := passed(t, specs)
			fmt.Printf("k8s: kube-proxy %s: %d of %d passed\n", proxy, n, conformanceCount)
			if n != conformanceCount {
				t.Errorf("%d tests passed, want %d", n, conformanceCount)
			}
			if proxy == "nftables" && !t.Failed() {
				c.control(t)
			}
		})
	}
}

// control drops what comes out of the tunnels on every node, and wants a test
// that passed to pass no more.
func (c *cluster) control(t *testing.T) {
	t.Helper()
	for _, n := range c.nodes {
		n.Shell(t, `nft 'add table inet cut; add chain inet cut forward { type filter hook forward priority 0; }; add rule inet cut forward iifname "obr0-t" drop'`)
	}
	specs := c.e2e(t, "control", run{focus: granular, within: 2 * time.Minute})
	for _, n := range c.nodes {
		n.Shell(t, "nft delete table inet cut")
	}
	if len(specs) != 1 || specs[0].Passed() {
		t.Errorf("with the tunnels cut: %+v", specs)
		return
	}
	fmt.Printf("k8s: with the tunnels cut: %s: %s\n", specs[0].State, short(specs[0]))
}
