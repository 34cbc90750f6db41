package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/testnet"
)

// sandboxAddrs are the addresses of the pod that the node's runtime has by a
// name, without the API server.
func (n *node) sandboxAddrs(name string) (id string, addrs []netip.Addr, err error) {
	id, err = n.crictl("pods", "-q", "--name", name, "--state", "ready")
	if err != nil || id == "" {
		return "", nil, fmt.Errorf("%s: no pod %s: %v", n.Name, name, err)
	}
	out, err := n.crictl("inspectp", id)
	if err != nil {
		return "", nil, err
	}
	var pod struct {
		Status struct {
			Network struct {
				IP            netip.Addr
				AdditionalIPs []struct{ IP netip.Addr }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &pod); err != nil {
		return "", nil, err
	}
	addrs = append(addrs, pod.Status.Network.IP)
	for _, a := range pod.Status.Network.AdditionalIPs {
		addrs = append(addrs, a.IP)
	}
	return id, addrs, nil
}

// serves waits until the node's runtime has a pod of a name which answers every
// node of the cluster and their pods.
func (n *node) serves(t testing.TB, name string) {
	t.Helper()
	var urls []string
	testnet.Eventually(t, patience, func() error {
		_, addrs, err := n.sandboxAddrs(name)
		if err != nil || len(addrs) != 2 {
			return fmt.Errorf("%s: pod %s: %v %v", n.Name, name, addrs, err)
		}
		urls = []string{url(addrs[0], "80"), url(addrs[1], "80")}
		left, err := unanswered(n.Host, 2, urls...)
		if err == nil && left != "" {
			err = errors.New(left)
		}
		return err
	})
	for _, from := range n.c.nodes {
		n.c.fetch(t, from.Host, name, urls...)
		testnet.Eventually(t, patience, func() error {
			id, err := from.crictl("ps", "-q", "--name", "server", "--label", "io.kubernetes.pod.namespace=default")
			if err != nil || id == "" {
				return fmt.Errorf("%s: no pod to reach %s from: %v", from.Name, name, err)
			}
			id, _, _ = strings.Cut(id, "\n")
			out, err := from.crictl("exec", "-s", id, "sh", "-c", get(10, urls...))
			if want := name + "\n" + name; err != nil || out != want {
				return fmt.Errorf("from a pod of %s: got %q, want %q: %v", from.Name, out, want, err)
			}
			return nil
		})
	}
}

// states are those of all nodes.
func (c *cluster) states(t testing.TB) (all []string) {
	t.Helper()
	for _, n := range c.nodes {
		text, err := n.state()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n.Name+"\n"+text)
	}
	return all
}

// stand fails the test where a node's tunnels, routes, neighbours are not as
// they were.
func (c *cluster) stand(t testing.TB, before []string) {
	t.Helper()
	if d := cmp.Diff(before, c.states(t)); d != "" {
		t.Errorf("tunnels and routes do not stand:\n%s", d)
	}
}

// leases are host-local's, on a node.
func (n *node) leases(t testing.TB) string {
	t.Helper()
	return n.Shell(t, "ls /var/lib/cni/networks/pods | grep -v -e lock -e last_reserved || :")
}

// testWithoutAPI stops the API server, and lets a static pod come and go.
func (c *cluster) testWithoutAPI(t *testing.T) string {
	n, before := c.nodes[1], c.states(t)
	had := n.leases(t)
	c.api.kill(t) // told to end, it would take a minute
	file := filepath.Join(n.dir, "manifests", "static.json")
	raw, err := json.Marshal(on(n, "static", server(manifest{"app": "static"}, nil, nil)))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	n.serves(t, "static-"+n.Name)
	came := time.Since(begin)
	begin = time.Now()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, patience, func() error {
		if has := n.leases(t); has != had {
			return fmt.Errorf("leases %q, before %q", has, had)
		}
		return nil
	})
	went := time.Since(begin)
	c.stand(t, before)
	c.api.start(t)
	c.api.ready(t, c.apiReady)
	return fmt.Sprintf("a pod came in %.1f s and went in %.1f s, tunnels and routes stand", came.Seconds(), went.Seconds())
}

// testWithoutAgent kills a node's agent, keeps it from coming back, and lets the
// runtime start and stop a pod.
func (c *cluster) testWithoutAgent(t *testing.T) string {
	n, before := c.nodes[1], c.states(t)
	had := n.leases(t)
	n.kubelet.stop(t)
	n.killAgent(t)
	sandbox, container := filepath.Join(n.dir, "sandbox.json"), filepath.Join(n.dir, "container.json")
	n.WriteFile(t, sandbox, `{"metadata": {"name": "bare", "namespace": "test", "uid": "1"}, "hostname": "bare", "linux": {"cgroup_parent": "/`+n.cgroup+`"}}`)
	n.WriteFile(t, container, `{"metadata": {"name": "bare"}, "image": {"image": "`+podImage+`"}, "command": ["sh", "-c", "`+serve+`"], "linux": {}}`)
	if out, err := n.crictl("run", "--no-pull", container, sandbox); err != nil {
		t.Fatal(out, err)
	}
	n.serves(t, "bare")
	id, _, err := n.sandboxAddrs("bare")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.crictl("rmp", "--force", id); err != nil {
		t.Error(err)
	}
	if has := n.leases(t); has != had {
		t.Errorf("leases %q, before %q", has, had)
	}
	c.stand(t, before)
	n.kubelet.start(t)
	running, ready := n.agentBack(t)
	c.stand(t, before)
	return fmt.Sprintf("a pod came and went, tunnels and routes stand; ready %.1f s after its start", ready.Sub(running).Seconds())
}

// received is in the last lines of ping.
var received = regexp.MustCompile(`transmitted, (\d+) (?:packets )?received`)

// testReplace replaces all agents, as an upgrade does, while a pod pings another
// node's.
func (c *cluster) testReplace(t *testing.T) string {
	before := c.states(t)
	pods := c.pods(t, "app=web", 3)
	stop, lost := make(chan struct{}), make(chan int, 1)
	go func() {
		sum := 0
		for {
			out, err := pods[0].exec(fmt.Sprintf("ping -q -c 5 -W 5 %s; ping -q -c 5 -W 5 %s; true", pods[1].addrs[0], pods[2].addrs[1]))
			sum += 10
			for _, m := range received.FindAllStringSubmatch(out, -1) {
				n, _ := strconv.Atoi(m[1])
				sum -= n
			}
			select {
			case <-stop:
				lost <- sum
				return
			default:
			}
			if err != nil {
				t.Log(err)
			}
		}
	}()
	c.kubectl(t, "-n", "kube-system", "rollout", "restart", "daemonset/ovs-gre")
	c.kubectl(t, "-n", "kube-system", "rollout", "status", "daemonset/ovs-gre", "--timeout=180s")
	close(stop)
	// A busy machine's switch in user space drops a packet now and then.
	n := <-lost
	if float64(n) > crowd(t)-1 {
		t.Errorf("%d pings lost meanwhile", n)
	}
	c.stand(t, before)
	c.pairs(t)
	return fmt.Sprintf("%d pings lost meanwhile, tunnels and routes stand", n)
}

// testRestartOVS stops Open vSwitch on a node, and starts it again.
func (c *cluster) testRestartOVS(t *testing.T) string {
	n := c.nodes[0]
	pods := c.pods(t, "app=web", 3)
	if err := n.StopOVS(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.StartOVS(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	var urls []string
	for _, p := range pods {
		urls = append(urls, p.urls()...)
	}
	for _, from := range c.nodes {
		testnet.Eventually(t, patience, func() error {
			left, err := unanswered(from.Host, 1, urls...)
			if err == nil && left != "" {
				err = fmt.Errorf("%s: %s", from.Name, left)
			}
			return err
		})
	}
	took := time.Since(begin)
	c.pairs(t)
	n.ready(t, patience)
	return fmt.Sprintf("all pods answer all nodes %.1f s after its start", took.Seconds())
}

// testDrift removes by hand what the agent has made.
func (c *cluster) testDrift(t *testing.T) string {
	n := c.nodes[1]
	p := c.nodes[2].peer(t)
	before, err := n.state()
	if err != nil {
		t.Fatal(err)
	}
	var worst time.Duration
	for _, remove := range []string{
		"ip route del " + p.subnet4,
		"ip -6 route del " + p.subnet6,
		"ovs-vsctl --timeout=20 del-port $(ovs-vsctl --no-headings --columns=name find interface type=gre options:remote_ip=" + p.addr + ")",
		"ip neigh del " + p.addr + " dev obr0-t",
		"ip address flush dev obr0",
		"ip link set obr0-t down",
	} {
		n.Shell(t, remove)
		begin := time.Now()
		testnet.Eventually(t, patience, func() error {
			now, err := n.state()
			if err != nil {
				return err
			}
			if d := cmp.Diff(before, now); d != "" {
				return fmt.Errorf("after %s: %s", remove, d)
			}
			return nil
		})
		took := time.Since(begin)
		bound(t, remove, took, 2*time.Second)
		worst = max(worst, took)
	}
	c.pairs(t)
	return fmt.Sprintf("routes, tunnel, neighbour, addresses, link: each back within %.1f s", worst.Seconds())
}

// gone is what is left of the network on a node that should have nothing of it.
const gone = `
ovs-vsctl --timeout=20 list-br | grep -v br-phy
ip -o link | grep -E 'obr0|ovs-gre|: o[vt][0-9a-f]+'
ip route show proto 121; ip -6 route show proto 121; ip neigh show nud permanent
nft list tables | grep ovs-gre
find /etc/cni/net.d /run/ovs-gre /var/lib/ovs-gre /var/lib/cni -type f ! -name 'last_reserved_ip*' ! -name lock
ls /opt/cni/bin | grep -E 'ovs-gre|route-sync'
true
`

// testUninstall removes the pods, and then the network from every node.
func (c *cluster) testUninstall(t *testing.T) string {
	c.kubectl(t, "delete", "deployment,service,pod", "--all", "--wait", "--cascade=foreground")
	for _, n := range c.nodes {
		testnet.Eventually(t, patience, func() error {
			if has := n.leases(t); has != "" {
				return fmt.Errorf("%s: leases %s", n.Name, has)
			}
			return nil
		})
	}
	for _, n := range c.nodes {
		if has := n.Run(t, "sh", "-c", gone); has == "" {
			t.Fatalf("%s: nothing to uninstall", n.Name)
		}
	}
	begin := time.Now()
	text := c.manifests(t, "uninstall.yaml")
	c.apply(t, text)
	c.kubectl(t, "-n", "kube-system", "rollout", "status", "daemonset/ovs-gre", "--timeout=180s")
	if _, err := c.input(text, "delete", "--wait", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	for _, n := range c.nodes {
		if left, err := n.Output(context.Background(), "sh", "-c", gone); err != nil || left != "" {
			t.Errorf("%s: left: %s %v", n.Name, left, err)
		}
	}
	return fmt.Sprintf("nothing left on %d nodes, in %.1f s", len(c.nodes), took.Seconds())
}
