package k8s

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/test/cnitest"
)

// networkCount is how many tests of Kubernetes 1.36 are of its networking, not
// of its conformance, and run here.
const networkCount = 108

// A reason says why tests do not run here. docs/kubernetes.md has the same.
type reason struct {
	tests string // a pattern of their names
	why   string
}

// unwanted are the tests that e2e.test is told to leave out.
var unwanted = []reason{
	{`\[Conformance\]`, "TestConformance runs them"},
	{`\[Feature:NetworkPolicy\]`, "TestNetworkPolicy runs them, with an engine"},
	{`\[Feature:LoadBalancer\]`, "a cloud makes the load balancer"},
	{`\[Feature:SCTPConnectivity\]`, "a kernel need not have SCTP"},
	{`\[Feature:Networking-(IPv4|IPv6|DNS)\]`, "they ask hosts on the Internet"},
	{`DNS configMap nameserver`, "they ask DNS servers on the Internet"},
	{`\[Disruptive\]`, "they restart kube-proxy or the API server by ssh, or as pods"},
	{`\[Feature:PerformanceDNS\]`, "it makes ten thousand Services"},
	{`\[Feature:KubeProxyNFAcct\]`, "kube-proxy counts so in mode iptables, for node ports on loopback"},
	{`\[Feature:Networking-Performance\]`, "iperf 2.2 is wanted, Debian 12 has 2.1"},
	{`Services should be rejected for evicted pods`, "kubelets here do not measure what pods write (localStorageCapacityIsolation)"},
	{`\[Provider:GCE\]`, "it asks for names that GCE has"},
}

// selfish are tests that leave themselves out.
var selfish = []reason{
	{`Traffic Distribution should route traffic (correctly between pods on multiple nodes|.* on the same node or fall back to same zone)`,
		"three zones of two nodes each are wanted"},
}

// limited are tests that fail by a limit that docs/kubernetes.md tells.
var limited = []reason{
	{`Services should implement NodePort and HealthCheckNodePort correctly`, "in mode tunnel a node has its gateway address to pods of other nodes"},
}

// sides are the tests' halves, which run side by side.
var sides = []string{`\[sig-network\] (Services|Connectivity|Traffic|Topology|Service CIDRs|DNS|Proxy)`, `\[sig-network\]`}

// TestNetwork runs what there is of Kubernetes' tests of networking beside its
// conformance, on three nodes that are three zones.
func TestNetwork(t *testing.T) {
	c := newWhole(t, "nftables")
	for _, n := range c.nodes {
		c.kubectl(t, "label", "node", n.Name, "topology.kubernetes.io/zone=zone-"+n.Name)
	}
	var skip []string
	for _, r := range unwanted {
		skip = append(skip, r.tests)
	}
	specs := c.sideBySide(t, "network", sides, skip, 90*time.Minute)
	tell(specs)
	passed := 0
	for _, s := range specs {
		switch {
		case s.Passed() && among(limited, s):
			t.Errorf("%s passes: tell docs/kubernetes.md", s.Name)
		case s.Passed():
			passed++
		case s.Ran() && !among(limited, s), !s.Ran() && !among(selfish, s):
			t.Errorf("%s: %s: %s", s.State, s.Name, s.Why)
		}
	}
	fmt.Printf("k8s: the other network tests, kube-proxy nftables: %d of %d passed\n", passed, networkCount)
	if passed != networkCount && os.Getenv(focusEnv) == "" {
		t.Errorf("%d tests passed, want %d", passed, networkCount)
	}
}

// sideBySide runs tests that several patterns choose, a test belonging to the
// first that fits, at the same time, and sorts them by name.
func (c *cluster) sideBySide(t *testing.T, name string, sides, skip []string, within time.Duration) []cnitest.Spec {
	t.Helper()
	if only := os.Getenv(focusEnv); only != "" {
		sides = []string{only}
	}
	found := make([][]cnitest.Spec, len(sides))
	t.Run("all", func(t *testing.T) {
		for i, side := range sides {
			t.Run(fmt.Sprintf("side%d", i), func(t *testing.T) {
				t.Parallel()
				without := strings.Join(append(slices.Clone(skip), sides[:i]...), "|")
				found[i] = c.e2e(t, fmt.Sprintf("%s-%d", name, i), run{focus: side, skip: without, within: within})
			})
		}
	})
	specs := slices.Concat(found...)
	slices.SortFunc(specs, func(a, b cnitest.Spec) int { return strings.Compare(a.Name, b.Name) })
	return specs
}

// focusEnv has a pattern of the tests to run, instead of all.
const focusEnv = "FOCUS"

// among reports whether a test is one of those with a reason.
func among(list []reason, s cnitest.Spec) bool {
	return slices.ContainsFunc(list, func(r reason) bool { return regexp.MustCompile(r.tests).MatchString(s.Name) })
}
