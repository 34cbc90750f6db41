package nodes_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

var compareAddrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// testNodes are host1 to hostN, at 172.16.32.1 and so on.
func testNodes(n int) []config.Node {
	nodes := make([]config.Node, n)
	for i := range nodes {
		hi, lo := byte((i+1)>>8), byte(i+1)
		nodes[i] = config.Node{
			Name:    fmt.Sprintf("host%d", i+1),
			Address: netip.AddrFrom4([4]byte{172, 16, 32 + hi, lo}),
			Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, hi, lo, 0}), 24)},
		}
	}
	return nodes
}

func addrs(list ...string) []netip.Addr {
	var as []netip.Addr
	for _, a := range list {
		as = append(as, netip.MustParseAddr(a))
	}
	return as
}

func TestResolve(t *testing.T) {
	list := testNodes(3)
	many := addrs("127.0.0.1", "::1", "fe80::1")
	for i := range 20 {
		many = append(many, netip.AddrFrom4([4]byte{10, 99, 0, byte(i)}))
	}
	for _, tc := range []struct {
		name  string
		nodes []config.Node
		node  string
		local []netip.Addr
		self  string // names of self and peers, and whether local
		err   string
	}{
		{"by address", list, "", addrs("127.0.0.1", "172.16.32.2", "192.168.0.1"), "host2, host1 host3, local", ""},
		{"first", list, "", addrs("172.16.32.1"), "host1, host2 host3, local", ""},
		{"last", list, "", addrs("172.16.32.3"), "host3, host1 host2, local", ""},
		{"by name", list, "host2", addrs("172.16.32.2"), "host2, host1 host3, local", ""},
		{"by name behind a NAT", list, "host3", addrs("10.0.0.1"), "host3, host1 host2, not local", ""},
		{"by name against the address", list, "host3", addrs("172.16.32.1"), "host3, host1 host2, not local", ""},
		{"by name where two addresses are local", list, "host1", addrs("172.16.32.1", "172.16.32.2"), "host1, host2 host3, local", ""},
		{"alone", list[:1], "", addrs("172.16.32.1"), "host1, , local", ""},
		{"nowhere", list, "", addrs("127.0.0.1", "10.0.0.1", "::1", "fe80::1", "fd00::1"), "",
			"invalid configuration: nodes: no entry for this host: none of its addresses (10.0.0.1, fd00::1) is listed; add it, or name its entry with the key node"},
		{"nowhere, without addresses", list, "", addrs("127.0.0.1"), "",
			"invalid configuration: nodes: no entry for this host: none of its addresses (it has none) is listed; add it, or name its entry with the key node"},
		{"nowhere, with many addresses", list, "", many, "",
			"invalid configuration: nodes: no entry for this host: none of its addresses (10.99.0.0, 10.99.0.1, 10.99.0.2, 10.99.0.3, 10.99.0.4, 10.99.0.5, 10.99.0.6, 10.99.0.7, 10.99.0.8, 10.99.0.9, 10.99.0.10, 10.99.0.11, 10.99.0.12, 10.99.0.13, 10.99.0.14, 10.99.0.15, and 4 more) is listed; add it, or name its entry with the key node"},
		{"nowhere, with one address too many", list, "", many[:3+17], "",
			"invalid configuration: nodes: no entry for this host: none of its addresses (10.99.0.0, 10.99.0.1, 10.99.0.2, 10.99.0.3, 10.99.0.4, 10.99.0.5, 10.99.0.6, 10.99.0.7, 10.99.0.8, 10.99.0.9, 10.99.0.10, 10.99.0.11, 10.99.0.12, 10.99.0.13, 10.99.0.14, 10.99.0.15, and 1 more) is listed; add it, or name its entry with the key node"},
		{"in an empty list", nil, "", addrs("10.0.0.1"), "",
			"invalid configuration: nodes: no entry for this host: none of its addresses (10.0.0.1) is listed; add it, or name its entry with the key node"},
		{"by an unknown name", list, "host\n4", addrs("172.16.32.1"), "", `invalid configuration: node "host\n4": no entry of nodes has this name`},
		{"twice", list, "", addrs("172.16.32.3", "172.16.32.1"), "",
			"invalid configuration: nodes: host1 (172.16.32.1) and host3 (172.16.32.3) are both this host: name one of them with the key node"},
	} {
		before := fmt.Sprint(tc.nodes)
		m, err := nodes.Resolve(tc.nodes, tc.node, tc.local)
		if err != nil {
			if !errors.Is(err, config.ErrInvalid) || err.Error() != tc.err {
				t.Errorf("%s:\n got %v\nwant %s", tc.name, err, tc.err)
			}
			if m.Self.Name != "" || m.Peers != nil || m.Local {
				t.Errorf("%s: an error and %+v", tc.name, m)
			}
			continue
		}
		var peers []string
		for _, p := range m.Peers {
			peers = append(peers, p.Name)
		}
		got := m.Self.Name + ", " + strings.Join(peers, " ") + ", " + map[bool]string{true: "local", false: "not local"}[m.Local]
		if got != tc.self {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.self)
		}
		if len(m.All()) != len(tc.nodes) || m.All()[0].Name != m.Self.Name {
			t.Errorf("%s: Nodes() is %v", tc.name, m.All())
		}
		m.Peers = append(m.Peers, config.Node{Name: "another"})
		if after := fmt.Sprint(tc.nodes); after != before {
			t.Errorf("%s: the caller's list became %s", tc.name, after)
		}
	}
}

// TestResolveMany: kube-proxy in IPVS mode gives a host an address a Service.
func TestResolveMany(t *testing.T) {
	list := testNodes(10000)
	var local []netip.Addr
	for i := range 10000 {
		local = append(local, netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}))
	}
	local = append(local, list[9999].Address)
	begin := time.Now()
	m, err := nodes.Resolve(list, "", local)
	d := time.Since(begin)
	t.Log("10,000 nodes, 10,000 addresses:", d)
	if err != nil || m.Self.Name != "host10000" || d > 10*time.Second {
		t.Errorf("%v, %v, after %v", m.Self, err, d)
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodes.json")
	for _, tc := range []struct {
		name, content string
		is            error
		want          string
	}{
		{"absent", "", nodes.ErrNotReady, "nodesFile FILE: not ready: no such file yet"},
		{"empty", "", config.ErrInvalid, "nodesFile FILE: nodes: not JSON: at byte 0: unexpected end of JSON input"},
		{"garbage", "\x7fELF\x00\x1b[31m", config.ErrInvalid, `nodesFile FILE: nodes: not JSON: at byte 1: invalid character '\x7f' looking for beginning of value`},
		{"half", `[{"name":"host1",`, config.ErrInvalid, "nodesFile FILE: nodes: not JSON: at byte 17: unexpected end of JSON input"},
		{"two lists", `[][]`, config.ErrInvalid, "nodesFile FILE: nodes: not JSON: at byte 3: invalid character '[' after top-level value"},
		{"null", `null`, config.ErrInvalid, `nodesFile FILE: nodes null: want a list of {"name","address","subnets"}`},
		{"a conflist", `{"nodes":[]}`, config.ErrInvalid, `nodesFile FILE: nodes {"nodes":[]}: want a list of {"name","address","subnets"}`},
		{"nodes with problems", `[{"name":"a"}]`, config.ErrInvalid, "nodesFile FILE: nodes[0] (a).address: missing: the node's address on the underlay\nnodes[0] (a).subnets: missing: the node's container subnets"},
		{"an empty list", `[]`, nil, ""},
		{"a list", `[{"name":"a","address":"10.0.0.1","subnets":["10.1.0.0/24"]}]` + "\n", nil, ""},
	} {
		if tc.name != "absent" {
			if err := os.WriteFile(file, []byte(tc.content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		nodes, err := nodes.Load(file)
		if !errors.Is(err, tc.is) || (err == nil) != (tc.is == nil) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.is)
		}
		if err == nil {
			continue
		}
		if got := strings.ReplaceAll(err.Error(), file, "FILE"); got != tc.want || nodes != nil {
			t.Errorf("%s: %v\n got %s\nwant %s", tc.name, nodes, got, tc.want)
		}
	}

	if _, err := nodes.Load(filepath.Dir(file)); err == nil || errors.Is(err, nodes.ErrNotReady) || errors.Is(err, config.ErrInvalid) {
		t.Errorf("a directory: %v", err)
	}
	// The directory may come later, too.
	if _, err := nodes.Load(filepath.Join(filepath.Dir(file), "absent", "nodes.json")); !errors.Is(err, nodes.ErrNotReady) {
		t.Errorf("no directory: %v", err)
	}
}

func TestNodes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodes.json")
	inline := testNodes(2)
	if got, err := nodes.Configured(&config.Base{Nodes: inline}); err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := nodes.Configured(&config.Base{}); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := nodes.Configured(&config.Base{NodesFile: file}); !errors.Is(err, nodes.ErrNotReady) {
		t.Errorf("%v, %v", got, err)
	}
	if err := nodes.Store(file, testNodes(3)); err != nil {
		t.Fatal(err)
	}
	if got, err := nodes.Configured(&config.Base{NodesFile: file}); err != nil || len(got) != 3 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "nodes.json")
	two := testNodes(2)
	two[0].Subnets = append(two[0].Subnets, netip.MustParsePrefix("fd00:1::/64"))
	two[1].Name = `<"ü" & 'x'>`
	for _, list := range [][]config.Node{two, {}, testNodes(500), nil, two} {
		if err := nodes.Store(file, list); err != nil {
			t.Fatal(err)
		}
		got, err := nodes.Load(file)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(list, got, compareAddrs, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-stored +loaded:\n%s", diff)
		}
	}
	// Everybody may read it: plugins need not run as the agent's user.
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	raw, err := os.ReadFile(file)
	if err != nil || raw[len(raw)-1] != '\n' {
		t.Errorf("%q, %v", raw, err)
	}

	// A failure says so and leaves all as it was.
	if err := nodes.Store(filepath.Join(dir, "absent", "nodes.json"), two); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	full := filepath.Join(dir, "full")
	if err := os.MkdirAll(filepath.Join(full, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := nodes.Store(full, two); err == nil {
		t.Error("replaces a directory")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "nodes.json" && e.Name() != "full" {
			t.Errorf("%s is left over", e.Name())
		}
	}

	// A link to the file is replaced, not what it leads to.
	link := filepath.Join(dir, "link.json")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := nodes.Store(link, nil); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(file); err != nil || string(again) != string(raw) {
		t.Errorf("%s, %v", again, err)
	}
}

// TestStoreIsAtomic: who reads while others write sees whole lists only.
func TestStoreIsAtomic(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodes.json")
	if err := nodes.Store(file, testNodes(1)); err != nil {
		t.Fatal(err)
	}
	sizes := []int{1, 7, 200, 60}
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := range 50 {
				if err := nodes.Store(file, testNodes(sizes[(i+w)%len(sizes)])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := make([]map[int]int, 2)
	for r := range seen {
		seen[r] = map[int]int{}
		readers.Go(func() {
			for {
				nodes, err := nodes.Load(file)
				if err != nil {
					t.Errorf("a reader sees: %v", err)
					return
				}
				seen[r][len(nodes)]++
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	t.Log("lists seen, by length:", seen)
	for _, s := range seen {
		for n := range s {
			if n != 1 && n != 7 && n != 200 && n != 60 {
				t.Errorf("a list of %d nodes, which nobody wrote", n)
			}
		}
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestForm: agents of others write the file too, so its form is fixed.
func TestForm(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodes.json")
	if err := nodes.Store(file, testNodes(1)); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[
  {"name":"host1","address":"172.16.32.1","subnets":["10.0.1.0/24"]}
]
`
	if diff := cmp.Diff(want, string(raw)); diff != "" || !json.Valid(raw) {
		t.Errorf("-want +got:\n%s", diff)
	}
}
