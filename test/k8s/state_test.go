package k8s

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

// look prints what a node has because of its peers.
const look = `
echo == routes; ip route show proto 121; ip -6 route show proto 121
echo == neighbours; ip neigh show nud permanent | grep -w obr0-t | sed 's/\( lladdr [^ ]*\)*\( managed extern_learn\).*/\2/' | sort
echo == tunnels; ovs-vsctl --timeout=20 --no-headings --columns=name,options find interface type=gre | sort
echo == sets; nft list table inet ovs-gre-pods
echo == nodes; cat /var/lib/ovs-gre/nodes.json
`

// state is what a node has because of its peers.
func (n *node) state() (string, error) {
	return n.Output(context.Background(), "sh", "-c", look)
}

// peer is how a node is known to others: its address and pod subnets.
type peer struct{ name, addr, mac, subnet4, subnet6 string }

func (n *node) peer(t testing.TB) peer {
	t.Helper()
	subnets := strings.Fields(n.c.kubectl(t, "get", "node", n.Name, "-o", "jsonpath={.spec.podCIDRs[0]} {.spec.podCIDRs[1]}"))
	if len(subnets) != 2 {
		t.Fatalf("%s has pod subnets %v", n.Name, subnets)
	}
	b := n.Addr4.As4()
	return peer{n.Name, n.Addr4.String(), fmt.Sprintf("0a:58:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3]), subnets[0], subnets[1]}
}

// traces are the lines of a node's state that speak of a peer.
func (n *node) traces(p peer) ([]string, error) {
	text, err := n.state()
	var lines []string
	for line := range strings.Lines(text) {
		for _, word := range []string{p.addr + " ", p.addr + `"`, p.mac, p.subnet4, p.subnet6, `"` + p.name + `"`} {
			if strings.Contains(line, word) {
				lines = append(lines, strings.TrimSpace(line))
				break
			}
		}
	}
	return lines, err
}

// clean waits until a node has nothing of a peer, and says how long that took.
func (n *node) clean(t testing.TB, p peer) time.Duration {
	t.Helper()
	begin := time.Now()
	testnet.Eventually(t, patience, func() error {
		if lines, err := n.traces(p); err != nil || len(lines) > 0 {
			return fmt.Errorf("%s still has of %s: %s: %v", n.Name, p.name, strings.Join(lines, "; "), err)
		}
		return nil
	})
	return time.Since(begin)
}

// bound fails the test where something took too long. The limit is that of a
// machine that does nothing else; where others run too, it grows as their
// number does.
func bound(t testing.TB, what string, took, limit time.Duration) {
	t.Helper()
	if crowd := crowd(t); took > time.Duration(crowd*float64(limit)) {
		t.Errorf("%s took %.1f s, more than %v, with %.1f programs a processor", what, took.Seconds(), limit, crowd)
	}
}

// crowd is how many programs have wanted each processor in the last minute, at
// least 1.
func crowd(t testing.TB) float64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	var load float64
	if _, err := fmt.Sscan(string(raw), &load); err != nil {
		t.Fatal(err)
	}
	return max(1, load/float64(runtime.NumCPU()))
}

// agentPID is the process id, in the node, of its agent, or 0.
func (n *node) agentPID() int {
	out, _ := n.Output(context.Background(), "pgrep", "-x", "ovs-gre-agent")
	pid, _ := strconv.Atoi(strings.TrimSpace(out))
	return pid
}

// killAgent ends the agent, which nothing but kubelet starts again.
func (n *node) killAgent(t testing.TB) {
	t.Helper()
	pid := n.agentPID()
	if pid == 0 {
		t.Fatalf("%s: no agent", n.Name)
	}
	n.Run(t, "kill", "-KILL", strconv.Itoa(pid))
	testnet.Eventually(t, patience, func() error {
		if n.agentPID() == pid {
			return errors.New(n.Name + ": the agent is still there")
		}
		return nil
	})
}

// agentBack waits for an agent's process, and then for its being ready, and
// returns when each was seen.
func (n *node) agentBack(t testing.TB) (running, ready time.Time) {
	t.Helper()
	testnet.Eventually(t, patience, func() error {
		if n.agentPID() == 0 {
			return errors.New(n.Name + ": no agent")
		}
		return nil
	})
	running = time.Now()
	testnet.Eventually(t, patience, func() error {
		_, err := n.Output(context.Background(), "busybox", "wget", "-qO-", "http://127.0.0.1:9178/readyz")
		return err
	})
	return running, time.Now()
}
