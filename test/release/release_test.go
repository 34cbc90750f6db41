// Package release builds a release twice and looks at what is in it.
package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/test/cnitest"
)

const (
	version = "7.8.9-dev.3.gabc"
	// debian is version as Debian and RPM sort it: before 7.8.9.
	debian = "7.8.9~dev.3.gabc"
	epoch  = "1700000000"
)

// build makes a release of a directory into another.
func build(t *testing.T, root, out string, wrap ...string) {
	t.Helper()
	args := append(wrap, filepath.Join(root, "deploy/release/build"), out)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "VERSION="+version, "SOURCE_DATE_EPOCH="+epoch)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// TestRelease: two releases of the same files are the same, one of them made from
// a copy elsewhere, under another name of the machine, another umask, in another
// time zone.
func TestRelease(t *testing.T) {
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	here, there, elsewhere := t.TempDir()+"/release", t.TempDir()+"/deeper/release", t.TempDir()
	build(t, root, here)
	for _, f := range []string{"SHA256SUMS", "ovs-gre-" + version + ".spdx.json", "ovs-gre-chart-" + version + ".tgz"} {
		if _, err := os.Stat(filepath.Join(here, f)); err != nil {
			t.Error(err)
		}
	}
	check := exec.Command("sha256sum", "--quiet", "-c", "SHA256SUMS")
	check.Dir = here
	if text, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		look(t, here, arch, machine)
	}
	one, err := os.ReadFile(here + "/ovs-gre-" + version + ".spdx.json")
	if err != nil || !bytes.Contains(one, []byte(`"pkg:golang/github.com/vishvananda/netlink@v`)) {
		t.Errorf("SBOM: %v: netlink is not in it", err)
	}

	// The same files, without .git.
	copied := exec.Command("sh", "-ec", `git ls-files -z -co --exclude-standard | xargs -0 cp --parents -t "$0"`, elsewhere)
	copied.Dir = root
	if text, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	build(t, elsewhere, there, "unshare", "--uts", "sh", "-ec", `hostname elsewhere; umask 077; export TZ=Asia/Tokyo; exec "$@"`, "sh")
	a, err := os.ReadFile(here + "/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(there + "/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(a), string(b)); diff != "" {
		t.Errorf("two releases of the same files differ:\n%s", diff)
	}
}

// look looks at what there is for one architecture, and at the version of each.
func look(t *testing.T, dir, arch string, machine elf.Machine) {
	t.Helper()
	name := "ovs-gre-" + version + "-linux-" + arch
	files := untar(t, filepath.Join(dir, name+".tar.gz"), true)
	for _, p := range []string{"ovs-gre", "route-sync", "ovs-grectl", "ovs-gre-agent"} {
		program := files[name+"/bin/"+p]
		f, err := elf.NewFile(bytes.NewReader(program))
		if err != nil || f.Machine != machine {
			t.Errorf("%s: bin/%s: %v, want a program for %s", name, p, err, machine)
		}
		if !bytes.Contains(program, []byte(version)) {
			t.Errorf("%s: bin/%s does not know its version", name, p)
		}
	}
	for _, f := range []string{"README.md", "LICENSE", "conflist/gre.conflist", "docs/install.md", "deploy/systemd/ovs-gre.service"} {
		if len(files[name+"/"+f]) == 0 {
			t.Errorf("%s: there is no %s", name, f)
		}
	}
	for _, p := range []string{"ovs-gre", "ovs-gre-agent"} {
		deb := filepath.Join(dir, p+"_"+debian+"_"+arch+".deb")
		out, err := exec.Command("dpkg-deb", "-f", deb, "Package", "Version", "Architecture").Output()
		if want := "Package: " + p + "\nVersion: " + debian + "\nArchitecture: " + arch + "\n"; err != nil || string(out) != want {
			t.Errorf("%s: %v: %s", deb, err, out)
		}
		rpm := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
		if _, err := os.Stat(filepath.Join(dir, p+"-"+debian+"-1."+rpm+".rpm")); err != nil {
			t.Error(err)
		}
	}
	image := untar(t, filepath.Join(dir, "ovs-gre-image-"+version+"-"+arch+".tar"), false)
	if !strings.Contains(string(image["manifest.json"]), `"localhost/ovs-gre:`+version+`"`) {
		t.Errorf("image: %s", image["manifest.json"])
	}
	chart := untar(t, filepath.Join(dir, "ovs-gre-chart-"+version+".tgz"), true)["ovs-gre/Chart.yaml"]
	if !bytes.Contains(chart, []byte("\nversion: "+version+"\nappVersion: "+version+"\n")) {
		t.Errorf("chart: %s", chart)
	}
}

// untar are the files of an archive.
func untar(t *testing.T, path string, gzipped bool) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var from io.Reader = f
	if gzipped {
		if from, err = gzip.NewReader(f); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	files := map[string][]byte{}
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
}
