package conformance_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/test/cnitest"
	"ovs-gre-cni/test/conformance"
)

// total counts over all chains of this run of tests.
var total struct{ passed, failed int }

func TestMain(m *testing.M) {
	code := m.Run()
	if total.passed+total.failed > 0 {
		fmt.Printf("conformance: %d passed, %d failed\n", total.passed, total.failed)
	}
	os.Exit(code)
}

// nodes are the lab's host and a peer that nobody needs to answer for.
var nodes = []cnitest.Conf{
	{"name": "host1", "address": "172.16.32.100", "subnets": []string{"192.168.1.0/24", "fd92:1::/64"}},
	{"name": "host2", "address": "172.16.32.101", "subnets": []string{"192.168.2.0/24", "fd92:2::/64"}},
}

// ranges are those of host1, for IPAM plugins that are not told by ovs-gre.
var ranges = [][]cnitest.Conf{{{"subnet": "192.168.1.0/24"}}, {{"subnet": "fd92:1::/64"}}}

func ovsGRE() cnitest.Conf {
	return cnitest.Conf{
		"type": "ovs-gre", "nodes": nodes, "ipMasq": true, "ipam": cnitest.Conf{"type": "host-local", "ranges": ranges},
		"capabilities": cnitest.Conf{"ips": true, "mac": true, "ipRanges": true},
	}
}

// bridge has IPv4 alone: it would wait a second and more for each IPv6 address.
func bridge() cnitest.Conf {
	return cnitest.Conf{
		"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "ipam": cnitest.Conf{"type": "host-local", "ranges": ranges[:1]},
		"capabilities": cnitest.Conf{"ips": true, "mac": true},
	}
}

func run(t *testing.T, name string, plugins ...cnitest.Conf) *conformance.Report {
	t.Helper()
	raw, err := json.Marshal(cnitest.Conf{"cniVersion": "1.1.0", "name": "confnet", "plugins": plugins})
	if err != nil {
		t.Fatal(err)
	}
	bin := cnitest.BinDir(t)
	o := conformance.Options{}
	if v := os.Getenv("OVSGRE_CONFORMANCE"); v != "" {
		o.Versions = strings.Split(v, ",")
	}
	r, err := conformance.Run(t.Context(), conformance.Chain{Name: name, Conflist: raw, Bin: bin, Tools: bin}, o)
	if r != nil {
		fmt.Println(r.Text())
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// clean wants no clause to fail.
func clean(t *testing.T, r *conformance.Report) {
	t.Helper()
	passed, failed := r.Count()
	total.passed, total.failed = total.passed+passed, total.failed+failed
	if passed < 80*len(r.Versions)/4 {
		t.Errorf("%d clauses passed: that is not all of them", passed)
	}
	for _, l := range r.Lines {
		for _, v := range r.Versions {
			if o := l.Outcomes[v]; o.Err != nil {
				t.Errorf("%s in version %s: %v", l.ID, v, o.Err)
			}
		}
	}
}

func TestConformanceOVSGRE(t *testing.T) { clean(t, run(t, "ovs-gre", ovsGRE())) }

func TestConformanceOVSGREAndRouteSync(t *testing.T) {
	clean(t, run(t, "ovs-gre, route-sync", ovsGRE(), cnitest.Conf{"type": "route-sync"}))
}

// TestConformanceBridge runs on a plugin that others wrote: what it fails it does fail.
func TestConformanceBridge(t *testing.T) {
	t.Parallel()
	fails(t, run(t, "bridge", bridge()), bridgeFails)
}

// TestConformanceBridgeAndRouteSync: route-sync adds nothing to what bridge fails.
func TestConformanceBridgeAndRouteSync(t *testing.T) {
	t.Parallel()
	nodes := slices.Clone(nodes)
	for i, n := range nodes {
		nodes[i] = cnitest.Conf{"name": n["name"], "address": n["address"], "subnets": n["subnets"].([]string)[:1]}
	}
	r := run(t, "bridge, route-sync (direct)", bridge(), cnitest.Conf{"type": "route-sync", "mode": "direct", "nodes": nodes})
	fails(t, r, bridgeFails)
	for _, l := range r.Lines {
		for v, o := range l.Outcomes {
			if o.Err != nil && strings.Contains(o.Err.Error(), "route-sync ") {
				t.Errorf("%s in version %s: %v", l.ID, v, o.Err)
			}
		}
	}
}

// TestConformanceNothing runs on a plugin that does nothing and says that all is well: few
// clauses can be content with that.
func TestConformanceNothing(t *testing.T) {
	t.Parallel()
	bin, tools := t.TempDir(), cnitest.BinDir(t)
	hostLocal, err := os.ReadFile(filepath.Join(tools, "host-local"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"host-local": hostLocal, "nothing": []byte(nothing)} {
		if err := os.WriteFile(filepath.Join(bin, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conflist, err := json.Marshal(cnitest.Conf{"cniVersion": "1.1.0", "name": "confnet", "plugins": []cnitest.Conf{{
		"type": "nothing", "ipam": cnitest.Conf{"type": "host-local", "ranges": ranges[:1]}, "capabilities": cnitest.Conf{"ips": true, "mac": true},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := conformance.Run(t.Context(), conformance.Chain{Name: "nothing", Conflist: conflist, Bin: bin, Tools: tools}, conformance.Options{Versions: []string{"1.1.0"}})
	if err != nil {
		t.Fatal(err)
	}
	var passed []string
	for _, l := range r.Lines {
		if o := l.Outcomes["1.1.0"]; o.Tried && o.Err == nil {
			passed = append(passed, l.ID)
		}
	}
	if d := cmp.Diff([]string{"VER-1", "VER-2", "ADD-27", "DEL-11", "STATUS-2", "GC-18", "TOOL-3", "OUT-1"}, passed); d != "" {
		t.Errorf("clauses that pass (-want +got):\n%s", d)
	}
}

// TestConformanceProgram runs the program that others use.
func TestConformanceProgram(t *testing.T) {
	t.Parallel()
	bin := cnitest.BinDir(t)
	conflist, err := json.Marshal(cnitest.Conf{"cniVersion": "1.1.0", "name": "confnet", "plugins": []cnitest.Conf{bridge()}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bridge.conflist")
	if err := os.WriteFile(file, conflist, 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "cni-conformance")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/cni-conformance").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-conflist", file, "-only", "VER,ADD-2,GC-3"}, 1, "conformance: 3 passed, 1 failed"},
		{[]string{"-conflist", file, "-only", "ADD-1,ADD-2"}, 0, "conformance: 2 passed, 0 failed"},
		{[]string{"-conflist", file, "-bin", t.TempDir()}, 2, `plugin "bridge": no such file`},
		{nil, 2, "-conflist"},
	} {
		cmd := exec.Command(program, append([]string{"-tools", bin}, c.args...)...)
		if len(c.args) == 4 && c.args[2] == "-only" {
			cmd.Args = append(cmd.Args, "-bin", bin, "-versions", "1.1.0")
		}
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != c.status || !strings.Contains(string(out), c.says) {
			t.Errorf("%v: exit status %d, want %d and %q:\n%s", c.args, got, c.status, c.says, out)
		}
	}
}

const nothing = `#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}';;
ADD) echo '{"cniVersion":"1.1.0"}';;
esac
`

// fails wants these clauses to fail, those that were tried, and no others.
func fails(t *testing.T, r *conformance.Report, want map[string]string) {
	t.Helper()
	tried := map[string]bool{}
	for _, l := range r.Lines {
		for _, o := range l.Outcomes {
			tried[l.ID] = tried[l.ID] || o.Tried
		}
	}
	var is, should []string
	for id := range r.Failed() {
		is = append(is, id)
	}
	for id := range want {
		if tried[id] {
			should = append(should, id)
		}
	}
	slices.Sort(is)
	slices.Sort(should)
	if d := cmp.Diff(should, is); d != "" {
		t.Errorf("clauses that fail (-want +got):\n%s", d)
	}
}

// bridgeFails are the clauses that containernetworking's bridge 1.10.0 with
// host-local fails, and why.
var bridgeFails = map[string]string{
	// The specification.
	"ADD-15":   "IPAM DEL is not run after a failed IPAM ADD: the deferred one comes after the return",
	"ADD-19":   "ipMasq's chain in iptables is named after network and container alone: DEL of the first of two interfaces cannot delete it and fails",
	"STATUS-9": "host-local has no STATUS, and bridge does not look itself",
	"GC-2":     "bridge has no GC",
	"GC-3":     "bridge has no GC: IPs of stale attachments stay",
	"GC-6":     "bridge has no GC",
	"GC-7":     "bridge has no GC",
	"GC-11":    "bridge has no GC, so IPAM's does not run, although the specification says MUST",
	"GC-13":    "bridge has no GC: IPAM's error cannot be told",
	"ERR-1":    "an error of IPAM's behind a result that it has printed already comes out with code 0",
	"ERR-2":    "the library prints errors without cniVersion",
	// The library.
	"ADD-9":  "a namespace that cannot be opened is a plain Go error: 999",
	"ADD-11": "host-local, called with the same CNI_NETNS, fails first, and after its result",
	"GC-5":   "bridge has no GC",
	"GC-8":   "bridge has no GC",
	// Our promises, which it never made.
	"ADD-12":    "the veth pair is made before anybody looks at the namespace",
	"ADD-16":    "the veth pair stays after a failure; runtimes call DEL",
	"ADD-18":    "the veth pair stays after a failure; runtimes call DEL",
	"ADD-25":    "host-local takes addresses from all three sources together and refuses two of one range",
	"ADD-27":    "a plain Go error: 999",
	"ADD-28":    "plain Go errors: 999, and the veth pair stays",
	"ADD-30":    "the kernel makes eth0 of eth%d, which nobody finds again",
	"ADD-31":    "the veth pair stays after a failure; runtimes call DEL",
	"DEL-7":     "without CNI_NETNS only IPAM DEL runs: the veth pair goes with the namespace",
	"DEL-8":     "it deletes the interface of that name in whatever namespace it is given",
	"DEL-9":     "a file that is no namespace is an error",
	"DEL-14":    "host-local wants its ranges in DEL, too",
	"DEL-19":    "a plain Go error: 999",
	"DEL-21":    "a previous result that cannot be read is an error, or a panic",
	"STATUS-6":  "IPAM's code is passed on, whatever it is",
	"STATUS-8":  "a plain Go error: 999",
	"STATUS-10": "host-local has no STATUS, and bridge does not look itself",
	"GC-10":     "bridge has no GC: it reads nothing",
	"GC-12":     "bridge has no GC",
	"GC-14":     "bridge has no GC",
	"GC-17":     "bridge has no GC",
	"ERR-4":     "plain Go errors: 999",
	"ERR-5":     "messages of iptables end in a line break",
}
