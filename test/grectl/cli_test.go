package grectl

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	matrix "ovs-gre-cni/pkg/ping"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// A schema is docs/ovs-grectl.schema.json.
type schema map[string]any

func loadSchema(t testing.TB) schema {
	t.Helper()
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "ovs-grectl.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// problems compares a value with a part of the schema.
func (s schema) problems(at string, part any, v any) (list []string) {
	rule, ok := part.(map[string]any)
	if !ok {
		return nil
	}
	if ref, ok := rule["$ref"].(string); ok {
		return s.problems(at, s["$defs"].(map[string]any)[filepath.Base(ref)], v)
	}
	is := map[string]bool{}
	switch v := v.(type) {
	case string:
		is["string"] = true
	case bool:
		is["boolean"] = true
	case float64:
		is["number"], is["integer"] = true, v == float64(int64(v))
	case []any:
		is["array"] = true
		for i, x := range v {
			list = append(list, s.problems(fmt.Sprintf("%s[%d]", at, i), rule["items"], x)...)
		}
	case map[string]any:
		is["object"] = true
		props, _ := rule["properties"].(map[string]any)
		for k, x := range v {
			if props[k] == nil {
				list = append(list, at+"."+k+": not in the schema")
			}
			list = append(list, s.problems(at+"."+k, props[k], x)...)
		}
		required, _ := rule["required"].([]any)
		for _, k := range required {
			if _, has := v[k.(string)]; !has {
				list = append(list, at+"."+k.(string)+": missing")
			}
		}
	}
	if want := rule["type"].(string); !is[want] {
		list = append(list, fmt.Sprintf("%s: is %T, want %s", at, v, want))
	}
	return list
}

// TestJSON: what each command prints as JSON is as the schema says.
func TestJSON(t *testing.T) {
	s := loadSchema(t)
	commands := s["properties"].(map[string]any)
	l := lab(t, 2, cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true, "tunnel": cnitest.Conf{"bfd": true}}})
	h := l.Hosts[0]
	want(t, 0, l.Hosts[1], "up")
	asked := map[string]bool{}
	check := func(code int, args ...string) {
		t.Helper()
		r := want(t, code, h, append(args, "-o", "json")...)
		asked[args[0]] = true
		for _, p := range s.problems(args[0], commands[args[0]], decode[any](t, r)) {
			t.Error(p)
		}
	}
	check(1, "status")
	check(0, "up")
	a := cnitest.Add(t, h, "ovsnet", "a")
	check(0, "status")
	check(0, "plan")
	check(0, "validate", conflist)
	check(0, "ping")
	check(0, "trace", a.Addr(t, false).String(), "192.168.2.1")
	check(1, "trace", a.Addr(t, false).String(), "192.168.2.2", "tcp", "80")
	check(0, "doctor")
	h.Shell(t, "ovs-vsctl del-port $(ovs-vsctl list-ports obr0-t); ip route del 192.168.2.0/24")
	check(1, "status")
	check(1, "doctor")
	check(1, "ping")
	check(0, "gc")
	check(0, "down", "--force")
	check(0, "version")
	check(0, "key") // a network without keys: an empty list
	for name := range commands {
		if !asked[name] {
			t.Errorf("%s: not asked for JSON", name)
		}
	}
}

// TestHelp: every command has help with an example, completes, and says the
// version.
func TestHelp(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 1, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	h := l.Hosts[0]
	for name := range loadSchema(t)["properties"].(map[string]any) {
		r := want(t, 0, h, name, "--help")
		for _, text := range []string{"usage:\n  ovs-grectl " + name, "Examples:", "--output"} {
			if !strings.Contains(r.out, text) {
				t.Errorf("%s --help has no %q:\n%s", name, text, r.out)
			}
		}
		if r := want(t, 0, h, "__complete", name[:1]); !strings.Contains(r.out, name+"\t") {
			t.Errorf("%s does not complete: %s", name[:1], r.out)
		}
	}
	if r := want(t, 0, h, "--version"); r.out != want(t, 0, h, "version").out {
		t.Errorf("%q", r.out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := want(t, 0, h, "completion", shell); len(r.out) < 1000 {
			t.Errorf("%s: %q", shell, r.out)
		}
	}
	h.Shell(t, "/opt/cni/bin/ovs-grectl completion bash >/run/completion && bash -c 'source /run/completion && complete -p ovs-grectl'")
}

var escape = regexp.MustCompile("\x1b\\[[0-9;]*[mK]")

// TestTerminal: colour is for terminals, and says nothing that words do not.
func TestTerminal(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h := l.Hosts[0]
	if r := want(t, 1, h, "status"); !strings.Contains(r.out, "nothing is made yet") || strings.Contains(r.out, "DRIFT") {
		t.Errorf("before up: %s", r.out)
	}
	if r := want(t, 1, h, "status", "-v"); !strings.Contains(r.out, "DRIFT: OVS bridge obr0 is missing\n         by hand: ovs-vsctl ") {
		t.Errorf("before up, -v: %s", r.out)
	}
	upAll(t, l)
	for _, args := range []string{"status", "ping", "doctor", "up"} {
		plain := ctl(t, h, args)
		term := h.Shell(t, "script -qec '/opt/cni/bin/ovs-grectl "+args+"' /dev/null </dev/null")
		if strings.Contains(plain.out, "\x1b") || args != "up" && !strings.Contains(term, "\x1b[") {
			t.Errorf("%s: %q\n%q", args, plain.out, term)
		}
		if none := h.Shell(t, "NO_COLOR=1 script -qec '/opt/cni/bin/ovs-grectl "+args+"' /dev/null </dev/null"); strings.Contains(none, "m\x1b") || strings.Contains(none, "\x1b[3") {
			t.Errorf("%s with NO_COLOR: %q", args, none)
		}
		if args == "doctor" && !strings.Contains(term, "looking at this host and its peers … 1 s") {
			t.Errorf("nothing says that it lasts: %q", term)
		}
		t.Logf("%s\n%s", args, strings.ReplaceAll(escape.ReplaceAllString(term, ""), "\r", ""))
	}
}

// TestNotRoot: who is not root is told so, and not to restart OVS.
func TestNotRoot(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h := l.Hosts[0]
	h.Shell(t, "chmod 700 /var/run/openvswitch; cp /opt/cni/bin/ovs-grectl /run/ovs-grectl; chmod 755 /run/ovs-grectl; chmod 644 "+conflist)
	out := h.Shell(t, "cd /; setpriv --reuid 65534 --clear-groups --inh-caps=-all --bounding-set=-all /run/ovs-grectl doctor 2>&1 || true")
	if !strings.Contains(out, "sudo ovs-grectl doctor") || strings.Contains(out, "systemctl restart") {
		t.Error(out)
	}
	out = h.Shell(t, "cd /; setpriv --reuid 65534 --clear-groups --inh-caps=-all --bounding-set=-all /run/ovs-grectl status 2>&1 || true")
	if !strings.Contains(out, "permission denied") {
		t.Error(out)
	}
}

// TestValidate looks at files, and at nothing else.
func TestValidate(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 2, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	h := l.Hosts[0]
	h.WriteFile(t, "/run/good", cnitest.Network{}.Conflist(l))
	h.WriteFile(t, "/run/foreign", strings.ReplaceAll(cnitest.Network{}.Conflist(l), h.Addr4.String(), "10.0.0.1"))
	h.WriteFile(t, "/run/bad", cnitest.Network{OVSGRE: cnitest.Conf{"bridg": "obr0", "mtu": 12}}.Conflist(l))
	h.WriteFile(t, "/run/file", cnitest.Network{OVSGRE: cnitest.Conf{"nodes": nil, "nodesFile": "/run/nodes.json"}}.Conflist(l))
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"/run/good /run/foreign", 0, []string{"sound  /run/good: network ovsnet", "sound  /run/foreign"}},
		{"/run/good /run/bad", 1, []string{"sound  /run/good", `did you mean "bridge"`, "mtu"}},
		{"/run/file", 0, []string{"the nodes were not checked: /run/nodes.json is not here"}},
		{"/run/none", 1, []string{"no such file"}},
		{"", 2, []string{"it takes FILE..."}},
	} {
		r := want(t, c.code, h, append([]string{"validate"}, strings.Fields(c.args)...)...)
		for _, s := range c.says {
			if !strings.Contains(r.out+r.err, s) {
				t.Errorf("validate %s: no %q in %s%s", c.args, s, r.out, r.err)
			}
		}
	}
}

// edges are what ping says of the peers.
func edges(t testing.TB, r reply) map[string]matrix.Edge {
	t.Helper()
	m := map[string]matrix.Edge{}
	for _, row := range decode[[]struct{ Peers []matrix.Edge }](t, r) {
		for _, e := range row.Peers {
			m[e.Peer] = e
		}
	}
	return m
}

// TestPing breaks ways: ping says which, and what still gets through.
func TestPing(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		l := lab(t, 3, cnitest.Network{V6: v6})
		h := l.Hosts[0]
		upAll(t, l)
		// A busy machine may be late with an answer.
		testnet.Eventually(t, longest, func() error {
			r := ctl(t, h, "ping", "-o", "json")
			for peer, e := range edges(t, r) {
				if !e.Underlay.OK() || e.Underlay.MTU != 1500 || e.Underlay.RTT <= 0 || e.Tunnel == nil || !e.Tunnel.OK() || e.Tunnel.RTT <= 0 || r.code != 0 {
					return fmt.Errorf("exit %d, %s: %+v %+v", r.code, peer, e.Underlay, e.Tunnel)
				}
			}
			return nil
		})
		testnet.Eventually(t, longest, func() error {
			if r := ctl(t, h, "ping"); !strings.Contains(r.out, "2 of 2 peers answer everything") || !strings.Contains(r.out, "host3") {
				return errors.New(r.out)
			}
			return nil
		})
		l.Underlay.Shell(t, "ip link set host2 mtu 1391")
		want(t, 0, l.Hosts[2], "down")
		testnet.Eventually(t, longest, func() error {
			m := edges(t, want(t, 1, h, "ping", "-o", "json"))
			if e := m["host2"]; e.Underlay.MTU != 1391 || !e.Underlay.Small || e.Tunnel.MTU >= 1391-20 || !e.Tunnel.Small {
				return fmt.Errorf("host2: %+v %+v", e.Underlay, e.Tunnel)
			}
			if e := m["host3"]; !e.Underlay.OK() || e.Tunnel.Received != 0 || e.Tunnel.Lost() != 100 || e.Tunnel.MTU != 0 {
				return fmt.Errorf("host3: %+v %+v", e.Underlay, e.Tunnel)
			}
			return nil
		})
	}
}

// TestPingMany: what is asked of 500 peers takes as long as of one.
func TestPingMany(t *testing.T) {
	if matrix.Longest >= 3*time.Second || matrix.AskLongest >= 1500*time.Millisecond { // of which doctor waits for one
		t.Errorf("a row takes %v, to ask %v", matrix.Longest, matrix.AskLongest)
	}
	const peers = 500
	l := testnet.New(t, testnet.Options{Hosts: 1, PluginDir: cnitest.BinDir(t)})
	h := l.Hosts[0]
	nodes := cnitest.Network{}.NodeList(l)
	var addrs strings.Builder
	for i := range peers {
		a := fmt.Sprintf("172.20.%d.%d", i/250, i%250+1)
		nodes = append(nodes, cnitest.Conf{"name": fmt.Sprintf("peer%03d", i), "address": a, "subnets": []string{fmt.Sprintf("10.%d.%d.0/24", 100+i/250, i%250)}})
		if i >= 10 { // the first ten are not there
			fmt.Fprintf(&addrs, "ip addr add %s/32 dev underlay\n", a)
		}
	}
	l.Underlay.Shell(t, addrs.String())
	h.Shell(t, "ip route add 172.20.0.0/16 via "+l.Underlay.Addr4.String())
	cnitest.Network{OVSGRE: cnitest.Conf{"nodes": nodes}}.Install(t, l)
	want(t, 0, h, "up")
	took := func(args ...string) reply {
		t.Helper()
		begin := h.Shell(t, "cut -d' ' -f1 /proc/uptime")
		r := ctl(t, h, args...)
		t.Logf("%v: from %s to %s", args, strings.TrimSpace(begin), h.Shell(t, "cut -d' ' -f1 /proc/uptime"))
		if lines := strings.Count(r.out, "\n"); lines > 50 {
			t.Errorf("%v: %d lines", args, lines)
		}
		return r
	}
	testnet.Eventually(t, longest, func() error {
		answered := 0
		for _, e := range edges(t, want(t, 1, h, "ping", "-o", "json")) {
			if e.Underlay.OK() {
				answered++
			}
		}
		if answered != peers-10 {
			return fmt.Errorf("%d peers answer on the underlay", answered)
		}
		return nil
	})
	took("ping")
	if r := took("status"); !strings.Contains(r.out, "500 of 500 tunnels are ok") {
		t.Error(r.out)
	}
	testnet.Eventually(t, longest, func() error {
		if r := took("doctor"); !strings.Contains(r.out, "10 peers (peer000, peer001 and 8 more) do not answer on the underlay") {
			return errors.New(r.out)
		}
		return nil
	})
	h.Shell(t, "ovs-vsctl del-br obr0-t")
	for _, cmd := range []string{"status", "doctor"} {
		if r := took(cmd); !strings.Contains(r.out, "OVS bridge obr0-t is missing") {
			t.Error(r.out)
		}
	}
	if r := ctl(t, h, "status"); !strings.Contains(r.out, "500 tunnels are missing: peer000, peer001 and 498 more") {
		t.Error(r.out)
	}
	l.Underlay.Shell(t, "ip link set underlay down")
	if r := took("doctor"); !strings.Contains(r.out, "none of the 500 peers (peer000, peer001 and 498 more) answers on the underlay") {
		t.Error(r.out)
	}
}
