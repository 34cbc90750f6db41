package runtimes

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"ovs-gre-cni/deploy/image/archive"
	"ovs-gre-cni/test/cnitest"
)

// critestFocus are the tests of critest that are about a pod's network.
const critestFocus = `Networking|HostNetwork is|portforward \[Conformance\]`

// critestCount is how many these are in cri-tools 1.36.
const critestCount = 7

// webImage serves on port 80 without a command, as critest's web server does.
const webImage = "docker.io/library/web:latest"

// TestCritest runs cri-tools' own tests of the network on containerd 2 with our
// chain. It is of the long list, for critest has to be built.
func TestCritest(t *testing.T) {
	t.Parallel()
	if !all() {
		return
	}
	row := begin(t, "critest, containerd 2")
	dir := upstream(t, "critest")
	l := newCRILab(t, releases(t)[1])
	row.version = strings.TrimPrefix(filepath.Base(dir), "critest-") + ", " + containerdVersion(t, l.one.daemon)
	h := l.one.host
	tar := filepath.Join(l.Dir, "web.tar")
	file, err := os.Create(tar)
	if err != nil {
		t.Fatal(err)
	}
	err = archive.Write(file, archive.Image{Ref: webImage, Arch: runtime.GOARCH, Env: []string{"PATH=/bin"}, Cmd: serve, Files: cnitest.Busybox(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	l.one.run(t, "ctr", "-n", "k8s.io", "images", "import", tar)
	h.WriteFile(t, "/run/images.yaml", fmt.Sprintf("defaultTestContainerImage: %s\nwebServerTestImage: %s\n", image, webImage))
	primePortmap(t, l.Lab)
	before := look(t, l.Lab)
	report := filepath.Join(l.Dir, "critest.json")
	out, runErr := l.one.output(filepath.Join(dir, "critest"), "-runtime-endpoint", criSocket, "-image-endpoint", criSocket,
		"-config", "/dev/null", "-test-images-file", "/run/images.yaml", "-ginkgo.focus", critestFocus, "-ginkgo.no-color", "-ginkgo.json-report", report)
	if _, err := os.Stat(report); err != nil {
		t.Fatalf("%v\n%s", runErr, out)
	}
	ran := 0
	for _, s := range cnitest.ReadSpecs(t, report) {
		if !s.Ran() {
			continue
		}
		ran++
		const all = "runtime should support "
		name := strings.TrimSuffix(s.Name[strings.LastIndex(s.Name, all)+len(all):], " [Conformance]")
		row.check(t, name, func(t *testing.T) {
			t.Logf("%.1f s", s.Took.Seconds())
			if !s.Passed() {
				t.Errorf("%s: %s", s.State, s.Why)
			}
		})
	}
	if runErr != nil || ran != critestCount {
		t.Errorf("%d tests ran, want %d: %v", ran, critestCount, runErr)
	}
	row.check(t, "nothing left", func(t *testing.T) { nothingLeft(t, l.Lab, before) })
	row.saw(t, l.Lab)
}
