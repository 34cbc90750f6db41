package k8s

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/deploy/image/archive"
	"ovs-gre-cni/pkg/testnet"
)

// policyCount is how many tests of NetworkPolicy Kubernetes 1.36 has, but for
// those that connect by SCTP.
const policyCount = 45

// policies are the tests' halves, which run side by side.
var policies = []string{`NetworkPolicy.* should enforce `, `\[Feature:NetworkPolicy\]`}

// TestNetworkPolicy has kube-network-policies beside the network of the
// manifests, and runs Kubernetes' own tests of it.
func TestNetworkPolicy(t *testing.T) {
	c := newWhole(t, "nftables")
	tar := writeImage(t, c.dir, archive.Image{Ref: "localhost/kube-network-policies:v0.8.0", Arch: runtime.GOARCH, Env: []string{"PATH=/bin"},
		Files: []archive.File{{Path: "bin/netpol", From: c.bin("netpol")}, {Path: "var/run/nri", Dir: true}}})
	for _, n := range c.nodes {
		n.Run(t, c.bin("ctr"), "-n", "k8s.io", "images", "import", tar)
	}
	c.kubectl(t, "apply", "-f", project(t, "deploy/networkpolicy/kube-network-policies.yaml"))
	c.kubectl(t, "-n", "kube-system", "rollout", "status", "daemonset/kube-network-policies", "--timeout=180s")
	if !c.step(t, "default-deny.yaml", c.testPolicy) {
		return
	}
	specs := c.sideBySide(t, "networkpolicy", policies, []string{`\[Feature:SCTPConnectivity\]`}, 150*time.Minute)
	tell(specs)
	n := passed(t, specs)
	fmt.Printf("k8s: NetworkPolicy: %d of %d passed\n", n, policyCount)
	if n != policyCount && os.Getenv(focusEnv) == "" {
		t.Errorf("%d tests passed, want %d", n, policyCount)
	}
}

// testPolicy applies the example to a pod that others reach, from its own node
// and from the others, before and after.
func (c *cluster) testPolicy(t *testing.T) string {
	c.create(t, on(c.nodes[0], "web", server(manifest{"app": "web"}, nil, nil)))
	for i, n := range c.nodes {
		c.create(t, on(n, fmt.Sprintf("friend%d", i), server(manifest{"app": "friend", "role": "friend"}, nil, nil)),
			on(n, fmt.Sprintf("stranger%d", i), server(manifest{"app": "stranger"}, nil, nil)))
	}
	web := c.pods(t, "app=web", 1)[0]
	friends, strangers := c.pods(t, "app=friend", len(c.nodes)), c.pods(t, "app=stranger", len(c.nodes))
	all := slices.Concat(friends, strangers)
	open := func() {
		t.Helper()
		for _, from := range all {
			from.fetch(t, "web", web.urls()...)
		}
	}
	open()
	example := project(t, filepath.Join("deploy/networkpolicy", "default-deny.yaml"))
	c.kubectl(t, "apply", "-f", example)
	// The engines hear of it in their own time.
	testnet.Eventually(t, patience, func() error {
		for _, from := range strangers {
			if out, err := from.exec(get(3, web.urls()...)); err != nil || strings.Count(out, "no answer from") != 2 {
				return fmt.Errorf("%s: no policy stops it: %q %v", from.name, out, err)
			}
		}
		return nil
	})
	for _, from := range friends {
		from.fetch(t, "web", web.urls()...)
		if out, err := from.exec(get(3, strangers[1].urls()...)); err != nil || strings.Count(out, "no answer from") != 2 {
			t.Errorf("%s reaches a pod that no policy allows to be: %q %v", from.name, out, err)
		}
	}
	c.kubectl(t, "delete", "-f", example)
	testnet.Eventually(t, patience, func() error {
		for _, from := range all {
			if out, err := from.exec(get(3, web.urls()...)); err != nil || out != "web\nweb" {
				return fmt.Errorf("%s: %q %v", from.name, out, err)
			}
		}
		return nil
	})
	c.kubectl(t, "delete", "pod", "--all", "--wait", "--timeout=120s")
	return "web is reached by friends on all nodes, its own too, and by nobody else, IPv4 and IPv6; by all without the policies"
}
