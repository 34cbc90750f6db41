// Package grectl runs the built ovs-grectl on labs of simulated hosts with real
// OVS.
package grectl

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// conflist is where cnitest installs the lab's network.
const conflist = "/etc/cni/net.d/10-ovsnet.conflist"

// lab starts n hosts that have the binaries and a network.
func lab(t *testing.T, n int, net cnitest.Network) *testnet.Lab {
	t.Helper()
	l := testnet.New(t, testnet.Options{Hosts: n, PluginDir: cnitest.BinDir(t)})
	net.Install(t, l)
	return l
}

// A reply is what a call of ovs-grectl printed, and its exit code.
type reply struct {
	out, err string
	code     int
}

// ctl calls ovs-grectl on a host.
func ctl(t testing.TB, h *testnet.Host, args ...string) reply {
	t.Helper()
	r := cnitest.Ctl(t, h, args...)
	return reply{r.Out, r.Err, r.Code}
}

// want calls ovs-grectl and fails the test if it ends with another code.
func want(t testing.TB, code int, h *testnet.Host, args ...string) reply {
	t.Helper()
	r := ctl(t, h, args...)
	if r.code != code {
		t.Fatalf("%s: ovs-grectl %v: exit %d, want %d\n%s%s", h.Name, args, r.code, code, r.out, r.err)
	}
	return r
}

// upAll brings the network up on all hosts.
func upAll(t testing.TB, l *testnet.Lab) {
	t.Helper()
	for _, h := range l.Hosts {
		want(t, 0, h, "up")
	}
}

func ping(t testing.TB, from testnet.Runner, to *cnitest.Container, v6 bool) {
	t.Helper()
	if err := testnet.Ping(context.Background(), from, to.Addr(t, v6), testnet.PingOptions{}); err != nil {
		t.Errorf("to %s on %s: %v", to.Name, to.Host.Name, err)
	}
}

// decode reads what --output json printed.
func decode[T any](t testing.TB, r reply) (v T) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(r.out))
	if err := dec.Decode(&v); err != nil || dec.More() {
		t.Fatalf("not one JSON value: %v\n%s%s", err, r.out, r.err)
	}
	return v
}

// volatile are fields that change without anybody's doing, or name a thing
// that comes back as another.
var volatile = map[string]bool{
	"ifindex": true, "link_index": true, "stats": true, "stats64": true, "valid_life_time": true, "preferred_life_time": true,
	"used": true, "confirmed": true, "updated": true, "probes": true, "refcnt": true, "expires": true,
}

// snapshot is the host as iproute2, OVS and the packet filters show it.
func snapshot(t testing.TB, h *testnet.Host) map[string]any {
	t.Helper()
	s := snapshotWithoutOVS(t, h)
	s["ovs-vsctl show"] = strings.Split(h.Shell(t, "ovs-vsctl show"), "\n")
	return s
}

func snapshotWithoutOVS(t testing.TB, h *testnet.Host) map[string]any {
	t.Helper()
	s := map[string]any{}
	for _, c := range []string{
		"ip -j -d link", "ip -j addr", "ip -j route show table all", "ip -j -6 route show table all", "ip -j rule", "ip -j -6 rule", "ip -j neigh show nud permanent",
	} {
		var v any
		out := h.Shell(t, c)
		if strings.TrimSpace(out) != "" {
			if err := json.Unmarshal([]byte(out), &v); err != nil {
				t.Fatalf("%s: %v: %s", c, err, out)
			}
		}
		s[c] = steady(v)
	}
	for _, c := range []string{
		"nft --stateless list ruleset", "iptables-save | grep -v '^#' || true", "ip6tables-save | grep -v '^#' || true",
		"find /run/ovs-gre 2>/dev/null || true",
	} {
		s[c] = strings.Split(h.Shell(t, c), "\n")
	}
	return s
}

func steady(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = steady(v[i])
		}
	case map[string]any:
		if _, ok := v["managed"]; ok { // a neighbour that the kernel asks for: the answers are its own
			delete(v, "lladdr")
			delete(v, "state")
		}
		for k := range v {
			if volatile[k] {
				delete(v, k)
			} else {
				v[k] = steady(v[k])
			}
		}
	}
	return v
}

func same(t testing.TB, what string, before, after map[string]any) {
	t.Helper()
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("%s, -before +after:\n%s", what, diff)
	}
}

// gone waits until a link is gone: the kernel takes a namespace's links away
// in its own time.
func gone(t testing.TB, h *testnet.Host, link string) {
	t.Helper()
	testnet.Eventually(t, longest, func() error {
		if _, err := h.Output(context.Background(), "ip", "link", "show", link); err == nil {
			return errors.New(link + " is still there")
		}
		return nil
	})
}

// forward sets the sysctls that up sets and down leaves, because others may
// rely on them by then. The kernel makes routes of its own for a router.
func forward(t testing.TB, h *testnet.Host) {
	t.Helper()
	h.Shell(t, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
}
