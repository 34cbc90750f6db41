package k8s

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
)

// serve is what the tests' pods do: they answer HTTP requests with their name.
const serve = "hostname >/www/index.html; exec httpd -f -p 80 -h /www"

// manifest is a Kubernetes object.
type manifest map[string]any

// server is a pod template with one container that serves; changes are keys of
// the container and of the pod's spec on top.
func server(labels manifest, container, spec manifest) manifest {
	c := manifest{
		"name": "server", "image": podImage, "imagePullPolicy": "Never", "command": []string{"sh", "-c", serve},
		"readinessProbe": manifest{"httpGet": manifest{"port": 80}, "periodSeconds": 1},
	}
	for k, v := range container {
		c[k] = v
	}
	s := manifest{"terminationGracePeriodSeconds": 0, "containers": []any{c}}
	for k, v := range spec {
		s[k] = v
	}
	return manifest{"metadata": manifest{"labels": labels}, "spec": s}
}

// deployment has a pod on every one of so many nodes.
func deployment(name string, replicas int, template manifest) manifest {
	labels := template["metadata"].(manifest)["labels"]
	return manifest{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": manifest{"name": name},
		"spec": manifest{"replicas": replicas, "selector": manifest{"matchLabels": labels}, "template": template},
	}
}

// apart keeps the pods of a label on different nodes.
func apart(labels manifest) manifest {
	return manifest{"affinity": manifest{"podAntiAffinity": manifest{"requiredDuringSchedulingIgnoredDuringExecution": []any{
		manifest{"labelSelector": manifest{"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}}}}}
}

// on makes a pod of a template, on a node.
func on(n *node, name string, template manifest) manifest {
	spec := manifest{"nodeName": n.Name}
	for k, v := range template["spec"].(manifest) {
		spec[k] = v
	}
	return manifest{"apiVersion": "v1", "kind": "Pod", "metadata": manifest{"name": name, "labels": template["metadata"].(manifest)["labels"]}, "spec": spec}
}

// create applies objects.
func (c *cluster) create(t testing.TB, objects ...manifest) {
	t.Helper()
	raw, err := json.Marshal(manifest{"apiVersion": "v1", "kind": "List", "items": objects})
	if err != nil {
		t.Fatal(err)
	}
	c.apply(t, string(raw))
}

// A pod is one that runs.
type pod struct {
	c          *cluster
	name, node string
	addrs      []netip.Addr // IPv4 first
}

// pods waits until so many pods with a label, and no others, are ready.
func (c *cluster) pods(t testing.TB, label string, count int) []pod {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name, DeletionTimestamp string }
			Spec     struct{ NodeName string }
			Status   struct {
				PodIPs     []struct{ IP netip.Addr }
				Conditions []struct{ Type, Status, Message string }
			}
		}
	}
	var pods []pod
	testnet.Eventually(t, patience, func() error {
		out, err := c.output("get", "pods", "-l", label, "-o", "json")
		if err != nil {
			return err
		}
		list.Items, pods = nil, nil
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		if len(list.Items) != count {
			return fmt.Errorf("%d pods %s, not %d", len(list.Items), label, count)
		}
		for _, i := range list.Items {
			for _, cond := range i.Status.Conditions {
				if cond.Type == "Ready" && cond.Status != "True" {
					return fmt.Errorf("pod %s is not ready: %v", i.Metadata.Name, i.Status.Conditions)
				}
			}
			p := pod{c: c, name: i.Metadata.Name, node: i.Spec.NodeName}
			for _, a := range i.Status.PodIPs {
				p.addrs = append(p.addrs, a.IP)
			}
			if len(p.addrs) != 2 || !p.addrs[0].Is4() || !p.addrs[1].Is6() {
				return fmt.Errorf("pod %s has addresses %v", p.name, p.addrs)
			}
			pods = append(pods, p)
		}
		return nil
	})
	slices.SortFunc(pods, func(a, b pod) int { return strings.Compare(a.node, b.node) })
	return pods
}

// exec runs a shell script in the pod, by kubectl exec.
func (p pod) exec(script string) (string, error) {
	return p.c.output("exec", p.name, "-c", "server", "--", "sh", "-c", script)
}

// url is where a server answers.
func url(a netip.Addr, port string) string {
	return "http://" + net.JoinHostPort(a.String(), port) + "/"
}

// urls are where a pod serves, IPv4 first.
func (p pod) urls() []string { return []string{url(p.addrs[0], "80"), url(p.addrs[1], "80")} }

// get is a shell command that prints what an HTTP server answers, within
// seconds. Busybox's wget has a time limit too, and dies of it.
func get(seconds int, urls ...string) string {
	return fmt.Sprintf("for u in %s; do timeout %d wget -qO- $u || echo no answer from $u; done", strings.Join(urls, " "), seconds)
}

// fetch gets URLs from the pod and fails the test where the answers are others.
func (p pod) fetch(t testing.TB, want string, urls ...string) {
	t.Helper()
	out, err := p.exec(get(20, urls...))
	if wanted := strings.TrimSpace(strings.Repeat(want+"\n", len(urls))); err != nil || out != wanted {
		t.Errorf("pod %s on %s: %s: got %q, want %q: %v", p.name, p.node, strings.Join(urls, " "), out, wanted, err)
	}
}
