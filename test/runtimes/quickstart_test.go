package runtimes

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// A step is a block of the README's quick start, and where it is to be typed:
// once, both, host1 or host2.
type step struct{ where, script string }

var stepBlock = regexp.MustCompile("(?s)<!-- quick start: (\\S+) -->\n```sh\n(.*?)```\n")

// steps are those of the README, in its order.
func steps(t *testing.T, root string) []step {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var list []step
	var where []string
	for _, m := range stepBlock.FindAllStringSubmatch(string(raw), -1) {
		list, where = append(list, step{m[1], m[2]}), append(where, m[1])
	}
	if want := []string{"once", "both", "host1", "host2"}; !slices.Equal(where, want) {
		t.Fatalf("the quick start's blocks are for %v, want %v", where, want)
	}
	return list
}

// A reader follows the quick start of the README.
type reader struct {
	*testnet.Lab
	root string // of the checkout
	copy string // what was copied to the hosts
}

// TestQuickStart types the README's quick start word for word: what is built on
// this machine, the rest on two hosts whose /opt/cni/bin and /usr/local/bin are
// empty.
//
// The hosts have no way out. apt-get runs here first, where it may install, and
// again on each host, where it finds all there. What a package's unit would
// start is started: Open vSwitch, containerd. The image is there already, as if
// it was pulled before. The one thing that is not the README's is the datapath
// in the conflist, where this kernel has no openvswitch: it goes in where the
// README says to put in the nodes, which are those of the lab.
func TestQuickStart(t *testing.T) {
	row := begin(t, "nerdctl quick start")
	need(t, "apt-get")
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{root: root}
	steps := steps(t, root)
	once, both, host1, host2 := steps[0].script, steps[1].script, steps[2].script, steps[3].script
	upstream(t, "nerdctl") // so that its time is told
	row.check(t, "build", func(t *testing.T) { r.here(t, once) })
	row.check(t, "apt-get", func(t *testing.T) { r.here(t, lines(t, both, "apt-get")) })
	// Only now come the other tests: apt-get may have changed what they run.
	t.Parallel()
	r.Lab = labWith(t, testnet.Options{OwnDirs: append([]string{"/usr/local/bin"}, ownDirs...)})
	r.copyConflist(t, "nerdctl.conflist")
	row.check(t, "install", func(t *testing.T) {
		for _, h := range r.Hosts {
			r.on(t, h, both)
		}
	})
	for _, h := range r.Hosts {
		d := startContainerd(t, r.Lab, h, release{}, containerdConf, "default")
		row.version = "nerdctl " + d.run(t, "/usr/local/bin/nerdctl", "version", "--format", "{{.Client.Version}}") + ", " + containerdVersion(t, d)
	}
	primePortmap(t, r.Lab)
	before := look(t, r.Lab)
	row.check(t, "run, ping, HTTP, -p", func(t *testing.T) {
		id := r.on(t, r.Hosts[0], host1)
		out := r.on(t, r.Hosts[1], host2)
		// A container's host name is the beginning of its id.
		if len(id) != 64 || !strings.Contains(out, "1 packets received") || strings.Count(out, id[:12]) != 2 {
			t.Errorf("%s says\n%s\n%s says\n%s", host1, id, host2, out)
		}
	})
	row.check(t, "nothing left", func(t *testing.T) {
		r.on(t, r.Hosts[0], "nerdctl rm -f web")
		nothingLeft(t, r.Lab, before)
	})
	for _, h := range r.Hosts {
		if files := h.Run(t, "find", "/etc/cni/net.d", "-name", "*.conf*", "-printf", "%f "); files != "10-ovsnet.conflist " {
			t.Errorf("%s: nerdctl has made a network of its own: %s", h.Name, files)
		}
	}
}

// here types a block on this machine, in the checkout.
func (r *reader) here(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-exc", script)
	cmd.Dir = r.root
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "APT_CONFIG="+aptConf(t))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// aptConf is a file for APT_CONFIG by which apt-get waits for dpkg's lock: another test
// may be installing at that moment, and all hosts of the labs share one /var/lib/dpkg.
func aptConf(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "apt.conf")
	if err := os.WriteFile(file, []byte(`DPkg::Lock::Timeout "300";`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// copyConflist copies bin/ and one of conflist/.
func (r *reader) copyConflist(t *testing.T, name string) {
	t.Helper()
	r.copy = t.TempDir()
	if err := os.CopyFS(filepath.Join(r.copy, "bin"), os.DirFS(filepath.Join(r.root, "bin"))); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(r.root, "conflist", name))
	if err != nil {
		t.Fatal(err)
	}
	// The nodes are those of the lab, of which host3 is none.
	conflist := regexp.MustCompile(`,\s*\{"name": "host3"[^}]*\}`).ReplaceAllString(string(raw), "")
	if r.Datapath == testnet.DatapathNetdev {
		conflist = strings.Replace(conflist, `"type": "ovs-gre",`, `"type": "ovs-gre", "datapathType": "netdev",`, 1)
	}
	if err := os.Mkdir(filepath.Join(r.copy, "conflist"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.copy, "conflist", name), []byte(conflist), 0o644); err != nil {
		t.Fatal(err)
	}
}

// on types a block on a host, where the copied files are.
func (r *reader) on(t *testing.T, h *testnet.Host, script string) string {
	t.Helper()
	out, err := output(h, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-ec", "export APT_CONFIG="+aptConf(t)+"\ncd "+r.copy+"\n"+script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// lines are those of a block that begin with a program's name.
func lines(t *testing.T, script, program string) string {
	t.Helper()
	var found strings.Builder
	for l := range strings.Lines(script) {
		if strings.HasPrefix(l, program+" ") {
			found.WriteString(l)
		}
	}
	if found.Len() == 0 {
		t.Fatalf("no %s in\n%s", program, script)
	}
	return found.String()
}
