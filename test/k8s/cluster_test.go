package k8s

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

// The address ranges of the cluster. There is room for more than a thousand
// nodes in podRanges.
const (
	podRanges     = "10.240.0.0/12,fd00:10:240::/48"
	serviceRanges = "10.96.0.0/16,fd00:10:96::/112"
	firstService  = "10.96.0.1"
)

// options are the kinds of cluster there are.
type options struct {
	// proxy is kube-proxy's mode.
	proxy string
	// whole is a cluster as Kubernetes' own tests want one: with DNS, privileged
	// pods, nodes that have names of their own, pods that the API server reaches.
	whole bool
	// bare is a control plane without controllers and scheduler: Nodes come with
	// their pod subnets, and there are no pods.
	bare bool
}

// A cluster is a control plane and its nodes.
type cluster struct {
	options
	t     testing.TB // the whole test, at whose end daemons stop
	lab   *testnet.Lab
	dir   string // of this machine: logs, keys, data
	pki   pki
	bin   func(program string) string
	nodes []*node // those that the API server knows
	// images are tar files for every node.
	images []string

	api, controllers *daemon
}

// programs are where test/upstream has put what Kubernetes consists of.
func programs(t testing.TB) func(string) string {
	t.Helper()
	dir := os.Getenv("OVSGRE_UPSTREAM")
	found := map[string]string{}
	var errs []error
	for _, release := range [][]string{
		{"containerd", "containerd", "ctr", "containerd-shim-runc-v2"}, {"crictl", "crictl"}, {"etcd", "etcd"},
		{"kubernetes", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"},
	} {
		for _, program := range release[1:] {
			at, _ := filepath.Glob(filepath.Join(dir, release[0]+"-*", program))
			if len(at) == 0 {
				errs = append(errs, fmt.Errorf("no %s in %q", program, dir))
				continue
			}
			found[program] = at[len(at)-1]
		}
	}
	// These are wanted by the conformance tests alone.
	for _, program := range []string{"kubernetes-*/e2e.test", "kubernetes-*/agnhost", "kubernetes-*/regression-issue-74839", "coredns-*/coredns", "netpol-*/netpol"} {
		if at, _ := filepath.Glob(filepath.Join(dir, program)); len(at) > 0 {
			found[filepath.Base(program)] = at[len(at)-1]
		}
	}
	for _, program := range []string{"runc", "busybox", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		err = fmt.Errorf("make test-k8s builds what is missing:\n%w", err)
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return func(program string) string {
		if found[program] == "" {
			t.Fatalf("no %s", program)
		}
		return found[program]
	}
}

// newCluster starts a control plane that has no nodes yet.
func newCluster(t testing.TB, lab *testnet.Lab, o options) *cluster {
	t.Helper()
	c := &cluster{options: o, t: t, lab: lab, dir: filepath.Join(lab.Dir, "cluster"), bin: programs(t)}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c.pki = newPKI(t, c.dir, lab.Underlay.Addr4, lab.Underlay.Addr6, netip.MustParseAddr(firstService), netip.MustParseAddr("127.0.0.1"))
	tokens := []string{"admin-token,admin,admin,system:masters", "kube-proxy-token,system:kube-proxy,kube-proxy"}
	for _, h := range lab.Hosts {
		tokens = append(tokens, fmt.Sprintf("%s-token,system:node:%s,%[1]s,system:nodes", h.Name, h.Name))
		c.kubeconfig(t, h.Name)
	}
	c.kubeconfig(t, "admin")
	c.kubeconfig(t, "kube-proxy")
	if err := os.WriteFile(c.pki.file("tokens.csv"), []byte(strings.Join(tokens, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.startControlPlane(t)
	t.Cleanup(func() { c.dump(t) })
	return c
}

// kubeconfig writes NAME.kubeconfig, for the user that has NAME-token.
func (c *cluster) kubeconfig(t testing.TB, name string) {
	t.Helper()
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://%s:6443", certificate-authority: %s}}]
users: [{name: user, user: {token: %s-token}}]
contexts: [{name: test, context: {cluster: test, user: user}}]
current-context: test
`, c.lab.Underlay.Addr4, c.pki.file("ca.crt"), name)
	if err := os.WriteFile(c.config(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) config(name string) string { return c.pki.file(name + ".kubeconfig") }

// startControlPlane starts etcd, the API server, the controllers, of which one
// gives every Node its pod subnets, and the scheduler.
func (c *cluster) startControlPlane(t testing.TB) {
	t.Helper()
	at, f := c.lab.Underlay, c.pki.file
	start(t, at, c.dir, "", c.bin("etcd"), "--data-dir="+f("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380")
	args := []string{c.bin("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + at.Addr4.String(), "--secure-port=6443",
		"--tls-cert-file=" + f("apiserver.crt"), "--tls-private-key-file=" + f("apiserver.key"), "--client-ca-file=" + f("ca.crt"),
		"--token-auth-file=" + f("tokens.csv"), "--authorization-mode=Node,RBAC",
		"--service-account-key-file=" + f("sa.pub"), "--service-account-signing-key-file=" + f("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=" + serviceRanges,
		"--kubelet-preferred-address-types=InternalIP"}
	if c.whole {
		args = append(args, "--allow-privileged=true")
	}
	c.api = start(t, at, c.dir, "", args...)
	c.api.ready(t, c.apiReady)
	if c.bare {
		return
	}
	c.controllers = start(t, at, c.dir, "", c.bin("kube-controller-manager"), "--kubeconfig="+c.config("admin"), "--leader-elect=false",
		"--bind-address=127.0.0.1", "--allocate-node-cidrs", "--cluster-cidr="+podRanges, "--service-cluster-ip-range="+serviceRanges,
		"--service-account-private-key-file="+f("sa.key"), "--root-ca-file="+f("ca.crt"), "--kube-api-qps=500", "--kube-api-burst=500")
	start(t, at, c.dir, "", c.bin("kube-scheduler"), "--kubeconfig="+c.config("admin"), "--leader-elect=false", "--bind-address=127.0.0.1")
}

// dump logs how a failed test's cluster is.
func (c *cluster) dump(t testing.TB) {
	if !t.Failed() {
		return
	}
	for _, what := range []string{"nodes,daemonsets,pods", "events"} {
		out, err := c.output("get", what, "--all-namespaces", "-o", "wide")
		lines := strings.Split(out, "\n")
		t.Logf("%s: %v\n%s", what, err, strings.Join(lines[max(0, len(lines)-30):], "\n"))
	}
}

// apiReady asks the API server whether it is.
func (c *cluster) apiReady() error {
	_, err := c.output("get", "--raw", "/readyz")
	return err
}

// output runs kubectl as the administrator.
func (c *cluster) output(args ...string) (string, error) { return c.input("", args...) }

// input is output with a standard input.
func (c *cluster) input(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	args = append([]string{"--kubeconfig=" + c.config("admin"), "--cache-dir=" + c.pki.file("kubectl"), "--request-timeout=60s"}, args...)
	cmd := c.lab.Underlay.Command(ctx, c.bin("kubectl"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args[3:], " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// kubectl is output for a call whose failure ends the test.
func (c *cluster) kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.output(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apply applies manifests.
func (c *cluster) apply(t testing.TB, manifests string) {
	t.Helper()
	if _, err := c.input(manifests, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// wait waits until what jsonpath prints of a resource is as wanted.
func (c *cluster) wait(t testing.TB, within time.Duration, want string, args ...string) {
	t.Helper()
	testnet.Eventually(t, within, func() error {
		out, err := c.output(append([]string{"get"}, args...)...)
		if err == nil && out != want {
			err = fmt.Errorf("kubectl get %s: %q, not %q", strings.Join(args, " "), out, want)
		}
		return err
	})
}
