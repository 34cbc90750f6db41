package runtimes

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// containerdConf is the configuration of a containerd that nothing is asked of
// but to run containers.
const containerdConf = "version = 2\n"

// A release is a containerd of one version.
type release struct {
	name string
	// dir has its programs; "" is where the distribution has them.
	dir string
	// cni is the version of the specification that it takes.
	cni string
}

// releases are the distribution's containerd and, with RUNTIMES=all, one of the
// next generation.
func releases(t *testing.T) []release {
	t.Helper()
	list := []release{{name: "containerd 1.6", cni: "1.0.0"}}
	if all() {
		list = append(list, release{name: "containerd 2", dir: upstream(t, "containerd"), cni: "1.1.0"})
	}
	return list
}

// eachRelease runs a test with each release, at once.
func eachRelease(t *testing.T, test func(*testing.T, release)) {
	for _, r := range releases(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			test(t, r)
		})
	}
}

// startContainerd starts a containerd with all its default paths, and gives it
// the image in these namespaces of containerd's.
func startContainerd(t *testing.T, l *testnet.Lab, h *testnet.Host, r release, conf string, namespaces ...string) *daemon {
	t.Helper()
	need(t, "containerd", "ctr", "runc", "busybox")
	h.WriteFile(t, "/etc/containerd/config.toml", conf)
	d := &daemon{host: h, path: os.Getenv("PATH"), args: []string{"containerd"}, ready: []string{"ctr", "version"}}
	if r.dir != "" {
		d.path = r.dir + ":" + d.path
	}
	d.start(t)
	t.Cleanup(func() {
		removeAll(t, d)
		d.stop(t)
	})
	for _, ns := range namespaces {
		d.run(t, "ctr", "--namespace", ns, "images", "import", imageFile(l))
	}
	return d
}

// removeAll removes all containers without asking CNI: one that dies with its
// host would leave cgroups on the machine.
func removeAll(t *testing.T, d *daemon) {
	t.Helper()
	_, err := d.output("sh", "-c", `for ns in $(ctr namespaces list -q); do
	ctr -n "$ns" tasks list -q | xargs -r -n1 ctr -n "$ns" tasks delete -f
	ctr -n "$ns" containers list -q | xargs -r ctr -n "$ns" containers delete
done`)
	if err != nil {
		t.Log(err)
	}
}

// containerdVersion is what the daemon says of itself.
func containerdVersion(t *testing.T, d *daemon) string {
	t.Helper()
	// containerd github.com/containerd/containerd v1.6.20 ...
	f := strings.Fields(d.run(t, "containerd", "--version"))
	return "containerd " + strings.TrimPrefix(strings.SplitN(f[2], "~", 2)[0], "v")
}

// need skips the test where the machine lacks a program, and fails it where the
// environment says CI=true.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// upstream builds programs of other projects, where the cache has them not, and
// returns the directory that has the release's.
func upstream(t *testing.T, programs ...string) string {
	t.Helper()
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(root, "test/upstream"), programs...)
	cmd.Stderr = os.Stderr
	started := time.Now()
	cache, err := cmd.Output()
	table.Lock()
	building += time.Since(started)
	table.Unlock()
	if err != nil {
		t.Fatalf("test/upstream %v: %v", programs, err)
	}
	found, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(cache)), programs[0]+"-*", programs[0]))
	if err != nil || len(found) == 0 {
		t.Fatalf("test/upstream has made no %s: %v", programs[0], err)
	}
	return filepath.Dir(found[len(found)-1])
}
