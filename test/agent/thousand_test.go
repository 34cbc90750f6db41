package agent

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestThousand: among a thousand nodes, one that comes or goes is seen to in
// under a second on an idle machine. The test prints what it took.
func TestThousand(t *testing.T) {
	l := lab(t, 1, 1)
	h := l.Hosts[0]
	nodes := append(all(l), strangers(1000)...)
	list(t, l, l.Hosts, nodes)
	began := time.Now()
	a := start(t, h)
	a.ready(t)
	first := time.Since(began)
	a.idle(t)
	took := map[string]time.Duration{}
	extra := strangers(1001)[1000]
	for what, nodes := range map[string][]cnitest.Conf{"one comes": append(nodes, extra), "one goes": nodes[:len(nodes)-1]} {
		began := time.Now()
		list(t, l, l.Hosts, nodes)
		want := strconv.Itoa(len(nodes) - 1)
		testnet.Eventually(t, longest, func() error {
			if have := strings.TrimSpace(h.Shell(t, "ip route show proto 121 | wc -l")); have != want {
				return fmt.Errorf("%s routes, want %s", have, want)
			}
			return nil
		})
		took[what] = time.Since(began)
		a.idle(t)
	}
	passes, spent := a.metric(t, "ovs_gre_agent_reconcile_duration_seconds_count"), a.metric(t, "ovs_gre_agent_reconcile_duration_seconds_sum")
	t.Logf("1,000 peers: ready after %s; %v; %.0f passes of %.2f s on average; %.0f MB", first.Round(time.Millisecond), took, passes, spent/passes,
		a.metric(t, "process_resident_memory_bytes")/1e6)
}

// strangers are nodes that have no host in the lab.
func strangers(n int) []cnitest.Conf {
	var nodes []cnitest.Conf
	for i := range n {
		nodes = append(nodes, cnitest.Conf{"name": fmt.Sprintf("stranger%04d", i), "address": fmt.Sprintf("10.200.%d.%d", i/250, i%250+1),
			"subnets": []string{fmt.Sprintf("10.%d.%d.0/24", 100+i/250, i%250)}})
	}
	return nodes
}

// metric is one of the agent's metrics.
func (a *agent) metric(t testing.TB, name string) float64 {
	t.Helper()
	body, _ := a.get("/metrics")
	for line := range strings.Lines(body) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("%s: no metric %s in\n%s", a.host.Name, name, body)
	return 0
}

// idle waits until the agent makes no more passes.
func (a *agent) idle(t testing.TB) {
	t.Helper()
	last, since := -1.0, time.Now()
	testnet.Eventually(t, longest, func() error {
		if n := a.metric(t, "ovs_gre_agent_reconcile_duration_seconds_count"); n != last {
			last, since = n, time.Now()
		}
		if quiet := time.Since(since); quiet < 2*time.Second {
			return fmt.Errorf("a pass was made %s ago", quiet)
		}
		return nil
	})
}
