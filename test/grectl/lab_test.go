// Package grectl runs the built ovs-grectl on labs of simulated hosts with real
// OVS.
package grectl

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

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

// same compares the host with a snapshot of it.
func same(t testing.TB, what string, before cnitest.Snapshot, h *testnet.Host) {
	t.Helper()
	if err := before.Left(h); err != nil {
		t.Errorf("%s: %v", what, err)
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
