// Package upgrade moves hosts with containers attached from the last version
// before this one to this, and back.
package upgrade

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// before is the version to come from and go back to: the last one whose hosts
// are out in the field.
const before = "99be39ccb403"

// programs are what a host has of a version.
var programs = []string{"ovs-gre", "route-sync", "ovs-grectl"}

// build compiles the version before, of this checkout's history, into dir.
func build(t *testing.T, dir string) {
	t.Helper()
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	src := t.TempDir()
	script := `git archive --format=tar "$1" | tar -x -C "$2"; cd "$2"; CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$3/" ` +
		`./plugins/main/ovs-gre ./plugins/meta/route-sync ./cmd/ovs-grectl`
	cmd := exec.Command("bash", "-eo", "pipefail", "-c", script, "bash", before, src, dir)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("commit %s, the version to upgrade from, cannot be built: this test wants a checkout with its history (git fetch --unshallow): %v\n%s", before, err, out)
	}
}

// bin is the directory of /opt/cni/bin: what is shared, and in old and new the
// programs of both versions.
func bin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(cnitest.BinDir(t))); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"old", "new"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build(t, filepath.Join(dir, "old"))
	for _, p := range programs {
		if err := os.Rename(filepath.Join(dir, p), filepath.Join(dir, "new", p)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// path is where a runtime looks for plugins while a host has a version.
func path(version string) string { return "CNI_PATH=/opt/cni/bin/" + version + ":/opt/cni/bin" }

// add attaches a container by a version.
func add(t *testing.T, h *testnet.Host, version, name string) *cnitest.Container {
	t.Helper()
	c := &cnitest.Container{Netns: h.NewNetns(t, name), Network: "ovsnet", IfName: "eth0"}
	c.Attach(t, path(version))
	return c
}

// up is ovs-grectl up of a version, on all hosts in turn, as an upgrade of the
// packages calls it.
func up(t *testing.T, l *testnet.Lab, version string) {
	t.Helper()
	for _, h := range l.Hosts {
		h.Run(t, "/opt/cni/bin/"+version+"/ovs-grectl", "up", "/etc/cni/net.d/10-ovsnet.conflist")
	}
}

func call(t *testing.T, c *cnitest.Container, verb, version string) {
	t.Helper()
	if err := c.Call(verb, path(version)); err != nil {
		t.Errorf("%s of container %s by the %s version: %v", verb, c.Name, version, err)
	}
}

// TestUpgrade: containers of the old version live on under the new one, those of
// the new one under the old, each version detaches the other's, and nothing is
// left. How many pings get lost meanwhile is printed.
func TestUpgrade(t *testing.T) {
	for _, segment := range []string{"host", "container"} {
		t.Run(segment, func(t *testing.T) {
			l := testnet.New(t, testnet.Options{Hosts: 2, PluginDir: bin(t)})
			cnitest.Network{Version: "1.0.0", OVSGRE: cnitest.Conf{"segment": segment}}.Install(t, l)
			var clean []cnitest.Snapshot
			for _, h := range l.Hosts {
				clean = append(clean, cnitest.MustLook(t, h))
			}
			a, b := l.Hosts[0], l.Hosts[1]
			all := []*cnitest.Container{add(t, a, "old", "a-old"), add(t, b, "old", "b-old")}
			cnitest.AllReach(t, all)

			during(t, segment, "upgrade", all[1], all[0], func() {
				up(t, l, "new")
				all = append(all, add(t, a, "new", "a-new"), add(t, b, "new", "b-new"))
			})
			cnitest.AllReach(t, all)
			for _, c := range all {
				call(t, c, "check", "new")
			}
			for _, h := range l.Hosts {
				h.Run(t, "/opt/cni/bin/new/ovs-grectl", "status", "/etc/cni/net.d/10-ovsnet.conflist")
			}

			during(t, segment, "downgrade", all[1], all[0], func() {
				for _, h := range l.Hosts {
					h.Run(t, "ovs-vsctl", "--timeout=60", "--if-exists", "del-br", "obr0-t") // as docs/install.md says
				}
				up(t, l, "old")
				all = append(all, add(t, a, "old", "a-back"))
			})
			cnitest.AllReach(t, all)
			// Each is detached by the version that did not attach it.
			for i, c := range all {
				version := "new"
				if i == 2 || i == 3 {
					version = "old"
				}
				call(t, c, "del", version)
				c.Delete(t)
			}
			for i, h := range l.Hosts {
				h.Run(t, "/opt/cni/bin/new/ovs-grectl", "down", "/etc/cni/net.d/10-ovsnet.conflist")
				if err := clean[i].Settled(h); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// during pings while something is done, and prints how many were lost.
func during(t *testing.T, segment, what string, from, to *cnitest.Container, do func()) {
	t.Helper()
	sent, answered := cnitest.During(t, from, to, time.Minute, do)
	fmt.Printf("upgrade: segment %s, %s: of %d pings, one every 50 ms, %d were answered\n", segment, what, sent, answered)
	if answered == 0 {
		t.Errorf("%s: no ping was answered", what)
	}
}
