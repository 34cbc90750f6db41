package conflist_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
)

const nodes = `"nodes":[{"name":"host1","address":"172.16.32.100","subnets":["192.168.1.0/24"]}]`

// chain is a conflist of network n with these plugins.
func chain(plugins string) string {
	return `{"cniVersion":"1.0.0","name":"n","plugins":[` + plugins + `]}`
}

// TestParse: a file names ovs-gre, route-sync or both, and all its problems are
// returned at once.
func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, raw   string
		ovs, routes bool
		err         error
		says        []string
	}{
		{name: "both", raw: chain(`{"type":"ovs-gre",` + nodes + `},{"type":"route-sync"},{"type":"portmap"}`), ovs: true, routes: true},
		{name: "one plugin without a list", raw: `{"cniVersion":"1.0.0","name":"n","type":"ovs-gre",` + nodes + `}`, ovs: true},
		{name: "route-sync behind another", raw: chain(`{"type":"bridge"},{"type":"route-sync",` + nodes + `}`), routes: true},
		{name: "none of ours", raw: chain(`{"type":"bridge"}`), err: config.ErrInvalid, says: []string{"names neither ovs-gre nor route-sync"}},
		{name: "not JSON", raw: `{"name":`, err: config.ErrDecode, says: []string{"at byte 8"}},
		{name: "problems of both", raw: chain(`{"type":"ovs-gre","mtu":1,` + nodes + `},{"type":"route-sync","metric":-1}`),
			ovs: true, routes: true, err: config.ErrInvalid, says: []string{"mtu", "metric"}},
	} {
		f := conflist.Parse("/x/10-n.conflist", []byte(tt.raw))
		if (f.OVS != nil) != tt.ovs || (f.Routes != nil) != tt.routes || !errors.Is(f.Err, tt.err) {
			t.Errorf("%s: ovs-gre %v, route-sync %v, error %v", tt.name, f.OVS, f.Routes, f.Err)
		}
		for _, text := range append(tt.says, "/x/10-n.conflist") {
			if f.Err != nil && !strings.Contains(f.Err.Error(), text) {
				t.Errorf("%s: %v does not say %q", tt.name, f.Err, text)
			}
		}
	}
}

// TestShareNodes: route-sync has the nodes of ovs-gre unless it has its own.
func TestShareNodes(t *testing.T) {
	for _, tt := range []struct {
		ovs, routes           string
		node, file, wantNode1 string
	}{
		{ovs: nodes, wantNode1: "host1"},
		{ovs: nodes + `,"node":"host1"`, node: "host1", wantNode1: "host1"},
		{ovs: nodes + `,"node":"host1"`, routes: `,"node":"host2"`, node: "host2", wantNode1: "host1"},
		{ovs: `"nodesFile":"/a"`, file: "/a"},
		{ovs: nodes, routes: `,"nodesFile":"/b"`, file: "/b"},
		{ovs: `"nodesFile":"/a","node":"x"`, routes: "," + nodes, wantNode1: "host1"},
	} {
		f := conflist.Parse("n", []byte(chain(`{"type":"ovs-gre",`+tt.ovs+`},{"type":"route-sync"`+tt.routes+`}`)))
		if f.Err != nil {
			t.Errorf("%+v: %v", tt, f.Err)
			continue
		}
		first := ""
		if len(f.Routes.Nodes) > 0 {
			first = f.Routes.Nodes[0].Name
		}
		if f.Routes.Node != tt.node || f.Routes.NodesFile != tt.file || first != tt.wantNode1 {
			t.Errorf("%+v: node %q, nodesFile %q, nodes %v", tt, f.Routes.Node, f.Routes.NodesFile, f.Routes.Nodes)
		}
	}
}

// TestLoadDir: runtimes use the first file of a network, whatever its plugins;
// files of others are not returned.
func TestLoadDir(t *testing.T) {
	dir := t.TempDir()
	ours := chain(`{"type":"ovs-gre",` + nodes + `}`)
	for name, raw := range map[string]string{
		"05-bridge.conf":  `{"cniVersion":"1.0.0","name":"n","type":"bridge"}`,
		"10-n.conflist":   ours,
		"20-m.conflist":   strings.Replace(ours, `"n"`, `"m"`, 1),
		"25-broken.json":  `{"name":"n","plugins":[{"type":"ovs-gre"`,
		"27-other.json":   `{"name":"o"`,
		"30-m.conflist":   strings.Replace(ours, `"n"`, `"m"`, 1),
		"40-m.conflist":   strings.Replace(ours, `"n"`, `"m"`, 1),
		"50-n.conflist~":  ours,
		"60-comment.conf": `{"cniVersion":"1.0.0","name":"p","type":"bridge","note":"\"ovs-gre\""}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := conflist.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got [][3]string
	for _, f := range files {
		by := f.SupersededBy
		if by != "" {
			by = filepath.Base(by)
			if s := f.Superseded(); !strings.HasPrefix(s, f.Path+": ") || !strings.Contains(s, f.SupersededBy) || !strings.Contains(s, f.Name()) {
				t.Errorf("%s: %q", f.Path, s)
			}
		}
		got = append(got, [3]string{filepath.Base(f.Path), f.Name(), by})
	}
	want := [][3]string{
		{"10-n.conflist", "n", "05-bridge.conf"},
		{"20-m.conflist", "m", ""},
		{"25-broken.json", "25-broken.json", ""},
		{"30-m.conflist", "m", "20-m.conflist"},
		{"40-m.conflist", "m", "20-m.conflist"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if files, err := conflist.LoadDir(filepath.Join(dir, "absent")); files != nil || err != nil {
		t.Errorf("no directory: %v, %v", files, err)
	}
}

// TestOddFiles: what is no regular file among the conflists is passed over, and one
// without end, named by hand, is an error.
func TestOddFiles(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(
		syscall.Mkfifo(filepath.Join(dir, "10-pipe.conflist"), 0o600), os.Symlink("/dev/zero", filepath.Join(dir, "20-zero.conflist")),
		os.Symlink("/nonexistent", filepath.Join(dir, "30-nothing.conflist")), os.Mkdir(filepath.Join(dir, "40-dir.conflist"), 0o700),
		os.WriteFile(filepath.Join(dir, "50-n.conflist"), []byte(chain(`{"type":"ovs-gre",`+nodes+`}`)), 0o600)); err != nil {
		t.Fatal(err)
	}
	files, err := conflist.LoadDir(dir)
	if err != nil || len(files) != 1 || filepath.Base(files[0].Path) != "50-n.conflist" {
		t.Errorf("%v: %v", files, err)
	}
	if f := conflist.Load("/dev/zero"); f.Err == nil || !strings.Contains(f.Err.Error(), "/dev/zero: want a file of at most 64 MB") {
		t.Errorf("/dev/zero: %v", f.Err)
	}
}
