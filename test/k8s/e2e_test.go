package k8s

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/deploy/image/archive"
	"ovs-gre-cni/test/cnitest"
)

// suiteImages are the images that Kubernetes' network tests use: one image that
// has what any of them needs, under all their names.
var suiteImages = []string{"agnhost:2.63.0", "glibc-dns-testing:2.0.0", "nginx:1.15-4", "busybox:1.37.0-1", "distroless-iptables:v0.9.6", "pause:3.10.2"}

// suitePrograms are what the tests run in pods, beside agnhost.
var suitePrograms = []string{"bash", "cat", "curl", "date", "dig", "echo", "env", "getent", "grep", "head", "hostname", "id", "ip", "ls",
	"mkdir", "nc", "nslookup", "ping", "rm", "sed", "seq", "sleep", "sort", "ss", "tail", "test", "timeout", "touch", "true", "uniq", "wc", "wget"}

// writeSuiteImage writes that image, as the first of its names.
func (c *cluster) writeSuiteImage(t testing.TB) string {
	t.Helper()
	beside := filepath.Dir(c.bin("agnhost"))
	files := []archive.File{
		{Path: "agnhost", From: c.bin("agnhost")}, {Path: "coredns", From: c.bin("coredns")},
		{Path: "localhost.crt", From: filepath.Join(beside, "localhost.crt"), Mode: 0o644},
		{Path: "localhost.key", From: filepath.Join(beside, "localhost.key"), Mode: 0o644},
		{Path: "bin/sh", Link: "bash"},
		{Path: "etc/nsswitch.conf", Data: "hosts: files dns\n", Mode: 0o644},
		{Path: "etc/passwd", Data: "root:x:0:0:root:/root:/bin/sh\n", Mode: 0o644},
		{Path: "etc/group", Data: "root:x:0:\n", Mode: 0o644},
		{Path: "uploads", Dir: true, Mode: 0o777}, {Path: "tmp", Dir: true, Mode: 0o1777},
		{Path: "dev", Dir: true}, {Path: "proc", Dir: true}, {Path: "sys", Dir: true}, {Path: "root", Dir: true},
	}
	files = append(files, withLibraries(t, suitePrograms...)...)
	return writeImage(t, c.dir, archive.Image{Ref: "localhost/" + suiteImages[0], Arch: runtime.GOARCH, Env: []string{"PATH=/bin"},
		Files: files, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}})
}

// writeRegressionImage writes the image of a server that sends segments out of
// its window, which has no shell.
func (c *cluster) writeRegressionImage(t testing.TB) string {
	t.Helper()
	return writeImage(t, c.dir, archive.Image{Ref: "localhost/regression-issue-74839:1.4", Arch: runtime.GOARCH,
		Files: []archive.File{{Path: "server", From: c.bin("regression-issue-74839")}}, Entrypoint: []string{"/server"}})
}

// newWhole is a cluster of three nodes as Kubernetes' own tests want one.
func newWhole(t *testing.T, proxy string) *cluster {
	t.Helper()
	lab := newLab(t)
	c := newCluster(t, lab, options{proxy: proxy, whole: true})
	c.images = append(images(t, c.dir), agentImage(t), c.writeSuiteImage(t), c.writeRegressionImage(t), c.writeDNSImage(t))
	for _, h := range lab.Hosts {
		n := c.join(t, h)
		for _, name := range suiteImages[1:] {
			h.Run(t, c.bin("ctr"), "-n", "k8s.io", "images", "tag", "localhost/"+suiteImages[0], "localhost/"+name)
		}
		_ = n
	}
	c.testInstall(t)
	// The API server calls pods: webhooks, proxies.
	for _, n := range c.nodes {
		p := n.peer(t)
		lab.Underlay.Shell(t, fmt.Sprintf("ip route replace %s via %s; ip -6 route replace %s via %s", p.subnet4, n.Addr4, p.subnet6, n.Addr6))
	}
	c.startDNS(t)
	return c
}

// A run is what e2e.test is asked for.
type run struct {
	focus, skip string
	within      time.Duration
}

// e2e runs Kubernetes' own tests on the cluster and returns what became of each
// that was chosen. It prints a line a test as they end.
func (c *cluster) e2e(t *testing.T, name string, r run) []cnitest.Spec {
	t.Helper()
	dir := filepath.Join(c.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Every image is called as if it came from one registry, and is there.
	list := filepath.Join(c.dir, "registries.yaml")
	if err := os.WriteFile(list, []byte("promoterE2eRegistry: localhost\nbuildImageRegistry: localhost\ngcRegistry: localhost\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(dir, "report.json")
	args := []string{"--kubeconfig=" + c.config("admin"), "--kubectl-path=" + c.bin("kubectl"), "--provider=skeleton", "--disable-log-dump",
		"--kube-test-repo-list=" + list, "--ginkgo.no-color", "--ginkgo.silence-skips", "--ginkgo.v", "--ginkgo.timeout=" + r.within.String(),
		"--ginkgo.json-report=" + report, "--ginkgo.focus=" + r.focus}
	if r.skip != "" {
		args = append(args, "--ginkgo.skip="+r.skip)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(context.Background(), r.within+2*patience)
	defer cancel()
	cmd := c.lab.Underlay.Command(ctx, c.bin("e2e.test"), args...)
	cmd.Env = append(os.Environ(), "HOME=/root", "KUBE_TEST_REPO_LIST="+list)
	cmd.Stdout, cmd.Stderr = log, log
	begin := time.Now()
	runErr := cmd.Run()
	keep(t, log.Name(), name+".log")
	if _, err := os.Stat(report); err != nil {
		raw, _ := os.ReadFile(log.Name())
		t.Fatalf("e2e.test: %v\n%s", runErr, raw[max(0, len(raw)-3000):])
	}
	keep(t, report, name+".json")
	var specs []cnitest.Spec
	for _, s := range cnitest.ReadSpecs(t, report) {
		if s.Ran() || s.Why != "" {
			specs = append(specs, s)
		}
	}
	fmt.Printf("k8s: %s: %d tests, %.0f s\n", name, len(specs), time.Since(begin).Seconds())
	return specs
}

// keep copies a file into bin/k8s-conformance, where it outlives the cluster.
func keep(t testing.TB, from, name string) {
	t.Helper()
	dir := project(t, "bin/k8s-conformance")
	raw, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), raw, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// short is a test's name without what all of them have.
func short(s cnitest.Spec) string {
	return strings.TrimSuffix(strings.TrimPrefix(s.Name, "[sig-network] "), " [Conformance]")
}

// tell prints a line a test.
func tell(specs []cnitest.Spec) {
	for _, s := range specs {
		fmt.Printf("k8s: %-7s %6.1f s  %s", s.State, s.Took.Seconds(), short(s))
		if s.Why != "" {
			fmt.Printf(": %.200s", s.Why)
		}
		fmt.Println()
	}
}

// passed counts the tests that passed; the others are errors.
func passed(t *testing.T, specs []cnitest.Spec) (n int) {
	t.Helper()
	for _, s := range specs {
		if s.Passed() {
			n++
		} else {
			t.Errorf("%s: %s: %s", s.State, s.Name, s.Why)
		}
	}
	return n
}
