package field

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// Codes of CNI errors.
const (
	badEnv   = 4
	invalid  = 7
	tryAgain = 11
	foreign  = 102
)

// longest is the longest wait; a busy machine may need it.
const longest = 20 * time.Second

// lab starts n hosts that have the binaries.
func lab(t *testing.T, n int) *testnet.Lab {
	t.Helper()
	return testnet.New(t, testnet.Options{Hosts: n, PluginDir: cnitest.BinDir(t)})
}

// ping fails the test if a container does not answer.
func ping(t *testing.T, from testnet.Runner, to *cnitest.Container) {
	t.Helper()
	lost, err := cnitest.Unreached(from, to.Addrs()...)
	if err != nil || len(lost) > 0 {
		t.Errorf("%s on %s: no answer from %v %v", to.Name, to.Host.Name, lost, err)
	}
}

// attached is a container that a plugin itself was called for, without cnitool.
func attached(t *testing.T, h *testnet.Host, name, conf string, env ...string) *cnitest.Container {
	t.Helper()
	c := &cnitest.Container{Netns: h.NewNetns(t, name), IfName: "eth0"}
	c.Result = cnitest.Result(t, c.Netns, "ovs-gre", conf, env...)
	return c
}

// del calls DEL and fails the test on an error.
func del(t *testing.T, c *cnitest.Container, conf string, env ...string) {
	t.Helper()
	if _, err := cnitest.Call(c.Netns, "ovs-gre", "DEL", conf, env...); err != nil {
		t.Errorf("DEL of %s: %v", c.Name, err)
	}
}

// settled fails the test unless the host is as before.
func settled(t *testing.T, before cnitest.Snapshot, h *testnet.Host) {
	t.Helper()
	if err := before.Settled(h); err != nil {
		t.Error(err)
	}
}

// routers switches on what the first ADD does and no DEL takes back.
func routers(t *testing.T, l *testnet.Lab) {
	for _, h := range l.Hosts {
		h.Shell(t, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	}
}

// addresses lists what host-local has given out for a network, and to whom.
func addresses(t *testing.T, h *testnet.Host, network string) string {
	t.Helper()
	return strings.TrimSpace(h.Shell(t, "cd /var/lib/cni/networks/"+network+" 2>/dev/null && grep -H . [0-9]* 2>/dev/null | tr -d '\\r' || true"))
}

// has fails the test unless the text has all of the parts.
func has(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: want %q in:\n%s", what, p, text)
		}
	}
}

// hasNot fails the test if the text has one of the parts.
func hasNot(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if strings.Contains(text, p) {
			t.Errorf("%s: %q is in:\n%s", what, p, text)
		}
	}
}

// with is a configuration with more keys, as JSON text.
func with(t *testing.T, conf string, more cnitest.Conf) string {
	t.Helper()
	var c cnitest.Conf
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		t.Fatal(err)
	}
	for k, v := range more {
		c[k] = v
		if v == nil {
			delete(c, k)
		}
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// output runs a script whose failure is no failure of the test.
func output(h testnet.Runner, format string, args ...any) string {
	out, err := h.Output(context.Background(), "sh", "-c", fmt.Sprintf(format, args...))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(out)
}

// portOf is the name of the host's end of a container that a plugin itself was
// called for.
func portOf(c *cnitest.Container) string { return config.PortName("ovsnet", c.Name, c.IfName) }

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	testnet.Eventually(t, longest, func() error {
		if !f() {
			return errors.New("it does not come about")
		}
		return nil
	})
}
