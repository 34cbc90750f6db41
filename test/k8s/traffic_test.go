package k8s

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
)

// testPods lets the pods of a Deployment, one a node, fetch from each other,
// and the nodes from the pods.
func (c *cluster) testPods(t *testing.T) string {
	labels := manifest{"app": "web"}
	c.create(t, deployment("web", 3, server(labels, nil, apart(labels))))
	pods := c.pods(t, "app=web", 3)
	c.pairs(t)
	for _, p := range pods {
		for _, n := range c.nodes {
			c.fetch(t, n.Host, p.name, p.urls()...)
		}
	}
	return fmt.Sprintf("%d pods on as many nodes, every pair and from every node, IPv4 and IPv6", len(pods))
}

// pairs lets the pods that app=web names, all of them, fetch from each other.
func (c *cluster) pairs(t testing.TB) {
	t.Helper()
	count := len(strings.Fields(c.kubectl(t, "get", "pods", "-l", "app=web", "-o", "name")))
	pods := c.pods(t, "app=web", count)
	for _, from := range pods {
		for _, to := range pods {
			from.fetch(t, to.name, to.urls()...)
		}
	}
}

// fetch gets URLs from a host.
func (c *cluster) fetch(t testing.TB, from testnet.Runner, want string, urls ...string) {
	t.Helper()
	out, err := from.Output(context.Background(), "busybox", "sh", "-c", get(10, urls...))
	if wanted := strings.Repeat(want+"\n", len(urls)); err != nil || out != wanted {
		t.Errorf("%s: got %q, want %q: %v", strings.Join(urls, " "), out, wanted, err)
	}
}

// service has addresses of both families, and chooses among the pods of a label.
func service(name string, labels manifest) manifest {
	return manifest{"apiVersion": "v1", "kind": "Service", "metadata": manifest{"name": name},
		"spec": manifest{"selector": labels, "ports": []any{manifest{"port": 8080, "targetPort": 80}}, "ipFamilyPolicy": "RequireDualStack"}}
}

// serviceURLs are where a Service answers.
func (c *cluster) serviceURLs(t testing.TB, name string) (urls []string) {
	t.Helper()
	for a := range strings.FieldsSeq(c.kubectl(t, "get", "service", name, "-o", "jsonpath={.spec.clusterIPs[0]} {.spec.clusterIPs[1]}")) {
		urls = append(urls, url(netip.MustParseAddr(a), "8080"))
	}
	return urls
}

// testServices reaches a Service whose only backend is on the first node: from
// that node's other pods, from the other nodes, and from the backend itself.
func (c *cluster) testServices(t *testing.T) string {
	labels := manifest{"app": "one"}
	c.create(t, on(c.nodes[0], "one", server(labels, nil, nil)), service("one", labels))
	one := c.pods(t, "app=one", 1)[0]
	urls := c.serviceURLs(t, "one")
	// kube-proxy hears of it in its own time.
	testnet.Eventually(t, patience, func() error {
		for _, n := range c.nodes {
			if out, err := n.Output(context.Background(), "busybox", "sh", "-c", get(2, urls...)); err != nil || out != "one\none\n" {
				return fmt.Errorf("%s: %q %v", n.Name, out, err)
			}
		}
		return nil
	})
	for _, p := range c.pods(t, "app=web", len(c.nodes)) {
		p.fetch(t, "one", urls...)
	}
	one.fetch(t, "one", urls...)
	return "from the backend's node, the other nodes and the backend itself, IPv4 and IPv6"
}

// testFilter drops what is forwarded to a pod, by a rule on its node alone, as
// an engine of NetworkPolicy does: no pod gets through, not even the node's own.
func (c *cluster) testFilter(t *testing.T) string {
	n, one := c.nodes[0], c.pods(t, "app=one", 1)[0]
	n.Shell(t, fmt.Sprintf(`nft 'add table inet test { chain forward { type filter hook forward priority 0; ip daddr %s drop; ip6 daddr %s drop; }; }'`, one.addrs[0], one.addrs[1]))
	pods := c.pods(t, "app=web", 3)
	for _, from := range pods {
		if out, err := from.exec(get(3, one.urls()...)); err != nil || strings.Count(out, "no answer from") != 2 {
			t.Errorf("from %s: the rule does not stop it: %q %v", from.node, out, err)
		}
	}
	n.Shell(t, "nft delete table inet test")
	for _, from := range pods {
		from.fetch(t, "one", one.urls()...)
	}
	return "a rule of the receiver's node stops pods of that node and of others, IPv4 and IPv6"
}

// testHostPort reaches a pod by a port of its node: from the world outside,
// another node and another node's pod.
func (c *cluster) testHostPort(t *testing.T) string {
	n := c.nodes[0]
	c.create(t, on(n, "port", server(manifest{"app": "port"}, manifest{"ports": []any{manifest{"containerPort": 80, "hostPort": 8099}}}, nil)))
	c.pods(t, "app=port", 1)
	urls := []string{url(n.Addr4, "8099"), url(n.Addr6, "8099")}
	c.fetch(t, c.lab.Underlay, "port", urls...)
	c.fetch(t, c.nodes[1].Host, "port", urls...)
	c.pods(t, "app=web", len(c.nodes))[2].fetch(t, "port", urls...)
	c.kubectl(t, "delete", "pod", "port", "--wait")
	testnet.Eventually(t, patience, func() error {
		if out, err := c.lab.Underlay.Output(context.Background(), "busybox", "sh", "-c", get(2, urls...)); err != nil || strings.Count(out, "no answer") != 2 {
			return fmt.Errorf("the port still answers after its pod: %q %v", out, err)
		}
		return nil
	})
	return "from outside, another node and its pod, IPv4 and IPv6; closed after the pod"
}

// testAPI asks the API server, by its Service, with a pod's own credentials.
func (c *cluster) testAPI(t *testing.T) string {
	kubectl := manifest{"volumeMounts": []any{manifest{"name": "kubectl", "mountPath": "/kubectl"}}}
	c.create(t, on(c.nodes[1], "api", server(manifest{"app": "api"}, kubectl,
		manifest{"volumes": []any{manifest{"name": "kubectl", "hostPath": manifest{"path": c.bin("kubectl")}}}})))
	p := c.pods(t, "app=api", 1)[0]
	out, err := p.exec("/kubectl --cache-dir=/tmp/kubectl auth whoami -o jsonpath={.status.userInfo.username}")
	if want := "system:serviceaccount:default:default"; err != nil || out != want {
		t.Errorf("the API server says %q, not %q: %v", out, want, err)
	}
	return "as " + out
}

// testLogs reads a pod's log and runs a program in it, which the API server
// does by the node's kubelet.
func (c *cluster) testLogs(t *testing.T) string {
	c.create(t, on(c.nodes[2], "log", server(manifest{"app": "log"}, manifest{"command": []string{"sh", "-c", "echo hello from $(hostname); " + serve}}, nil)))
	p := c.pods(t, "app=log", 1)[0]
	if out := c.kubectl(t, "logs", "log"); out != "hello from log" {
		t.Errorf("kubectl logs: %q", out)
	}
	if out, err := p.exec("cat /etc/hostname"); err != nil || out != "log" {
		t.Errorf("kubectl exec: %q %v", out, err)
	}
	return ""
}

// testProbes looks at kubelet's view of a pod by all kinds of probes, and at
// what becomes of it when one fails.
func (c *cluster) testProbes(t *testing.T) string {
	n := c.nodes[1]
	c.create(t, on(n, "probes", server(manifest{"app": "probes"}, manifest{
		"startupProbe":   manifest{"tcpSocket": manifest{"port": 80}, "periodSeconds": 1},
		"readinessProbe": manifest{"httpGet": manifest{"port": 80, "path": "/index.html"}, "periodSeconds": 1, "failureThreshold": 1},
		"livenessProbe":  manifest{"exec": manifest{"command": []string{"test", "!", "-e", "/www/die"}}, "periodSeconds": 1, "failureThreshold": 1},
	}, nil)))
	p := c.pods(t, "app=probes", 1)[0]
	ready := []string{"pod", "probes", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.containerStatuses[0].restartCount}`}
	c.wait(t, patience, "True 0", ready...)
	for _, step := range []struct{ do, want string }{
		{"mv /www/index.html /www/gone", "False 0"},
		{"mv /www/gone /www/index.html", "True 0"},
		{"touch /www/die", "True 1"}, // a new container has no such file
	} {
		if _, err := p.exec(step.do); err != nil {
			t.Fatal(err)
		}
		c.wait(t, patience, step.want, ready...)
	}
	return "startup by TCP, readiness by HTTP, liveness by a program; each seen to fail"
}
