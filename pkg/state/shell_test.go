package state_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/state"
)

// hostile are node names that a shell, ovs-vsctl or a terminal might take for
// more than a name.
var hostile = []string{
	`a"b`, `a'b`, `'`, `"`, `\`, `a\`, `\"`, `a\'b`, `'\''`, `$(touch pwned)`, "`touch pwned`", `${HOME}`, `; touch pwned; `,
	`'; touch pwned; '`, `"; touch pwned; "`, `'"; touch pwned; #`, `a b`, ` `, `-- del-br obr0`, `--`, `-h`, `a=b`, `a,b`, `{}`, `[]`,
	`a:b`, `@x`, `!`, `~`, `*`, `#`, `&`, `|touch pwned`, `>pwned`, `\n`, `\u0027`, `true`, `1`, `ü`, `名`, `<&>`, strings.Repeat("x", 253),
}

// hostileState is a set in which everything that an operator may name freely
// is hostile. The peers come in the order of the names.
func hostileState(t *testing.T) (state.Set, []config.Node) {
	var nodes []config.Node
	for i, name := range append([]string{"self"}, hostile...) {
		var n config.Node
		n.Name = name
		n.Address = mustAddr(fmt.Sprintf("172.16.32.%d", i+1))
		n.Subnets = append(n.Subnets, mustPrefix(fmt.Sprintf("10.0.%d.0/24", i)))
		nodes = append(nodes, n)
	}
	raw, err := json.Marshal(nodes)
	if err != nil {
		t.Fatal(err)
	}
	c, m := network(t, string(raw), `,"ipMasq":true`)
	s := state.Desired(c, m, 1400)
	rs, err := state.DesiredRoutes(routesConfig(t, ""), m, ways(c, m))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(s, rs)
	return s, m.Peers
}

// TestShell runs what Desired prints through bash, with functions that print
// their arguments in the place of the commands.
func TestShell(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		lacks(t, err)
	}
	dir := t.TempDir()
	run := func(script string) [][]string {
		t.Helper()
		const stub = `show() { printf '%s\0' "$@"; printf '\n\0'; }
ovs-vsctl() { show ovs-vsctl "$@"; }; ovs-appctl() { show ovs-appctl "$@"; }; ip() { show ip "$@"; }; sysctl() { show sysctl "$@"; }; nft() { show nft "$@"; }; iptables() { show iptables "$@"; }; ip6tables() { show ip6tables "$@"; }
touch() { echo pwned >pwned; }
`
		cmd := exec.Command(bash, "-eu", "-c", stub+script)
		cmd.Dir, cmd.Env = dir, []string{"PATH=/nonexistent", "HOME=/root"}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%v: %s\n%s", err, stderr.String(), script)
		}
		var argvs [][]string
		var argv []string
		for arg := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			if arg == "\n" {
				argvs, argv = append(argvs, argv), nil
				continue
			}
			argv = append(argv, arg)
		}
		return argvs
	}
	for _, seg := range segments {
		combinations(seg, func(tun string, under int, fam string) {
			c, m := network(t, nodesJSON(2, under, fam), fmt.Sprintf(`,"ipMasq":true,"segment":%q,"tunnel":{"type":%q}`, seg, tun))
			s := state.Desired(c, m, mtu(t, c, m))
			if argvs := run(s.String()); len(argvs) != len(s) {
				t.Errorf("segment %s, tunnel %s: %d objects make %d commands, want %d", seg, tun, len(s), len(argvs), len(s))
			}
		})
	}

	s, peers := hostileState(t)
	script := s.String()
	if got := strings.Count(script, "\n"); got != len(s) {
		t.Errorf("%d objects make %d lines", len(s), got)
	}
	for _, plain := range []string{`'"<&>"'`, `'"ü"'`, `='"a b"'`} {
		if !strings.Contains(script, plain) {
			t.Errorf("%s is nowhere to be read", plain)
		}
	}
	argvs := run(script)
	if len(argvs) != len(s) {
		t.Errorf("%d objects make %d commands, want %d:\n%s", len(s), len(argvs), len(s), script)
	}
	want, got := map[string]string{}, map[string]string{}
	for _, p := range peers {
		want[p.Address.String()] = p.Name
	}
	for _, argv := range argvs {
		var remote string
		for _, arg := range argv {
			if v, ok := strings.CutPrefix(arg, "options:remote_ip="); ok {
				remote = v
			}
			if v, ok := strings.CutPrefix(arg, "external_ids:ovs-gre.peer="); ok {
				got[remote] = v
				if strings.HasPrefix(v, `"`) {
					// ovs-vsctl(8): "the same as a JSON string".
					var s string
					if err := json.Unmarshal([]byte(v), &s); err != nil {
						t.Errorf("%s: %v", v, err)
					}
					got[remote] = s
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("peers, -want +got:\n%s", diff)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("a node's name made %s", left[0].Name())
	}

	// What others wrote into OVSDB is printed, too.
	for _, o := range []state.Object{
		state.Port{Network: "n", Name: "og1", Bridge: "b", ContainerID: "$(touch pwned)'\n", IfName: "", Error: "x\ntouch pwned\r\x1b[31m"},
		state.Tunnel{Network: "n", Name: "ot1", Bridge: "b", Type: "gre", Remote: mustAddr("10.0.0.1"), Peer: "a\ntouch pwned", Key: "';touch pwned", Error: "\n\ntouch pwned"},
		state.Bridge{Network: "n", Name: "b-t", HWAddr: "\ntouch pwned", Error: "\u0085touch pwned"},
		state.Bridge{Network: "n", Name: "b", HWAddr: "'\";touch pwned"},
		state.Forward{Network: "n", Out: "b", To: "fd00::/64", Answers: true},
	} {
		if strings.ContainsAny(o.String(), "\n\r\x1b\u0085") {
			t.Errorf("not one line: %q", o)
		}
		if strings.Contains(o.String()+" ", "= ") {
			t.Errorf("ovs-vsctl wants a value behind every =: %s", o)
		}
		if n := len(run(o.String())); n != 1 {
			t.Errorf("%d commands: %s", n, o)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("OVSDB's content made %s", left[0].Name())
	}
}

// TestRefusedNames: what cannot be a name on one line never gets into a Set.
func TestRefusedNames(t *testing.T) {
	for _, name := range []string{"a\nb", "a\x00b", "a\x1b[31mb", "a\tb", "a\u2028b", "a\u202eb", "a\u0085b", strings.Repeat("x", 254), ""} {
		raw, _ := json.Marshal([]map[string]any{{"name": name, "address": "172.16.32.1", "subnets": []string{"10.0.0.0/24"}}})
		if nodes, err := config.DecodeNodes("nodes", raw); err == nil || len(nodes) > 0 {
			t.Errorf("%q passes: %v", name, nodes)
		}
	}
}

// TestOVSTakesIt hands what Desired prints to the real ovs-vsctl, on a
// database that no switch looks at, and reads the peers back.
func TestOVSTakesIt(t *testing.T) {
	const schema = "/usr/share/openvswitch/vswitch.ovsschema"
	for _, tool := range []string{"bash", "ovsdb-tool", "ovsdb-server", "ovs-vsctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			lacks(t, err)
		}
	}
	if _, err := os.Stat(schema); err != nil {
		lacks(t, err)
	}
	dir := t.TempDir()
	db, sock := filepath.Join(dir, "conf.db"), "unix:"+filepath.Join(dir, "s")
	if out, err := exec.Command("ovsdb-tool", "create", db, schema).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := exec.Command("ovsdb-server", "--remote=p"+sock, "--unixctl="+filepath.Join(dir, "ctl"), "--log-file=/dev/null", db)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = server.Process.Kill(), server.Wait() }()
	vsctl := func(script string) string {
		t.Helper()
		const stub = "ip() { :; }; ovs-appctl() { :; }; sysctl() { :; }; nft() { :; }; iptables() { :; }; ip6tables() { :; }; ovs-vsctl() { command ovs-vsctl --timeout=10 --no-wait --db=$DB \"$@\"; }\n"
		// In a network of its own: should a command slip through, it meets nobody.
		cmd := exec.Command("unshare", "--user", "--map-root-user", "--net", "bash", "-e", "-c", stub+script)
		cmd.Env = append(os.Environ(), "DB="+sock)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s\n%s", err, out, script)
		}
		return string(out)
	}
	vsctl("ovs-vsctl --retry init")
	for _, keys := range []string{
		`,"tunnel":{"key":7,"csum":true,"bfd":true},"datapathType":"netdev"`,
		`,"tunnel":{"type":"vxlan","port":8472}`,
		`,"tunnel":{"type":"geneve"},"segment":"mesh"`,
	} {
		for _, under := range underlays {
			c, m := network(t, nodesJSON(2, under, "dual"), keys)
			script := state.Desired(c, m, mtu(t, c, m)).String()
			vsctl(script + script) // twice is as good as once
			vsctl("ovs-vsctl del-br obr0 -- --if-exists del-br obr0-t")
		}
	}
	secret := filepath.Join(dir, "it's a psk")
	if err := os.WriteFile(secret, []byte("two words, $(x)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, m := network(t, nodesJSON(2, 4, "v4"), fmt.Sprintf(`,"tunnel":{"options":{"ttl":64,"tos":"a, 'b' $(c)","psk":{"file":%q}}}`, secret))
	vsctl(state.Desired(c, m, mtu(t, c, m)).String())
	const want = `"two words, $(x)" "a, 'b' $(c)" "64"`
	name := config.TunnelName("ovsnet", m.Peers[0].Address)
	got := vsctl(fmt.Sprintf("for o in psk tos ttl; do ovs-vsctl get interface %s options:$o; done", name))
	if got := strings.ReplaceAll(strings.TrimSpace(got), "\n", " "); got != want {
		t.Errorf("options %s, want %s", got, want)
	}
	vsctl("ovs-vsctl del-br obr0 -- --if-exists del-br obr0-t")
	s, peers := hostileState(t)
	vsctl(s.String())
	for i, p := range peers {
		var got string
		out := vsctl("ovs-vsctl --format=json --data=json --columns=external_ids list interface " + config.TunnelName("ovsnet", p.Address))
		var table struct{ Data [][][]any }
		if err := json.Unmarshal([]byte(out), &table); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, kv := range table.Data[0][0][1].([]any) {
			if kv := kv.([]any); kv[0] == "ovs-gre.peer" {
				got = kv[1].(string)
			}
		}
		if got != hostile[i] {
			t.Errorf("peer %q became %q", hostile[i], got)
		}
	}
}

// TestTenThousandNodes plans a network of 10,000 nodes. The bound is there to
// tell quick from quadratic, not to measure.
func TestTenThousandNodes(t *testing.T) {
	begin := time.Now()
	raw := manyNodes(10000)
	lap := func(what string) {
		t.Logf("%-8s %v", what, time.Since(begin).Round(time.Millisecond))
		begin = time.Now()
	}
	first := begin
	lap("write")
	c, m := network(t, raw, `,"ipMasq":true`)
	lap("parse")
	want := state.Desired(c, m, mtu(t, c, m))
	lap("Desired")
	routes, err := state.DesiredRoutes(routesConfig(t, ""), m, ways(c, m))
	lap("Routes")
	if err != nil || len(m.Peers) != 9999 || len(routes) != 4*9999 {
		t.Errorf("%d peers, %d routes and neighbours, %v", len(m.Peers), len(routes), err)
	}
	maps.Copy(want, routes)
	if n := len(state.Diff(want, nil)); n != len(want) {
		t.Errorf("%d changes make %d objects", n, len(want))
	}
	lap("Diff")
	if n := len(state.Diff(want, maps.Clone(want))); n != 0 {
		t.Errorf("%d changes between equal sets", n)
	}
	lap("no Diff")
	if n := strings.Count(want.String(), "\n"); n != len(want) {
		t.Errorf("%d objects on %d lines", len(want), n)
	}
	lap("String")
	if d := time.Since(first); d > 30*time.Second {
		t.Errorf("10,000 nodes took %v", d)
	}
}

// manyNodes lists n nodes with a subnet of either family.
func manyNodes(n int) string {
	nodes := make([]config.Node, n)
	for i := range nodes {
		nodes[i].Name = fmt.Sprintf("node-%05d", i)
		nodes[i].Address = mustAddr(fmt.Sprintf("172.16.%d.%d", i>>8, i&255))
		nodes[i].Subnets = append(nodes[i].Subnets, mustPrefix(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)), mustPrefix(fmt.Sprintf("fd00:%x::/64", i)))
	}
	raw, err := json.Marshal(nodes)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func BenchmarkDesiredDiff(b *testing.B) {
	for _, n := range []int{10, 1000, 5000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c, m := network(b, manyNodes(n), `,"ipMasq":true`)
			have := state.Desired(c, m, 1400)
			have[state.ID{Kind: state.KindBridge, Name: "obr0"}] = nil
			for b.Loop() {
				if len(state.Diff(state.Desired(c, m, 1400), have)) != 1 {
					b.Fatal("want one change")
				}
			}
		})
	}
}

func BenchmarkDesiredRoutes(b *testing.B) {
	for _, n := range []int{10, 1000, 5000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c, m := network(b, manyNodes(n), "")
			rc, w := routesConfig(b, ""), ways(c, m)
			for b.Loop() {
				if _, err := state.DesiredRoutes(rc, m, w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// lacks skips a test that this machine cannot run; in CI that is a failure.
func lacks(t *testing.T, why error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}
