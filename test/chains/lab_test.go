// Package chains runs plugins of containernetworking behind ours, on simulated
// hosts, and looks whether each does its job and takes it back.
package chains

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// longest bounds every wait; a busy machine may take its time.
const longest = time.Minute

// lab starts two hosts that have the binaries and the network.
func lab(t *testing.T, n cnitest.Network) *testnet.Lab {
	t.Helper()
	l := testnet.New(t, testnet.Options{Hosts: 2, PluginDir: cnitest.BinDir(t)})
	n.Install(t, l)
	return l
}

// A container is one that a runtime hands the same environment at each call.
type container struct {
	*cnitest.Container
	env []string
}

// add attaches a container; env is what the runtime has for it beside the usual.
func add(t testing.TB, h *testnet.Host, network, name string, env ...string) *container {
	t.Helper()
	return &container{attach(t, h.NewNetns(t, name), network, "eth0", env...), env}
}

// attach gives a namespace an interface on a network.
func attach(t testing.TB, ns *testnet.Netns, network, ifName string, env ...string) *cnitest.Container {
	t.Helper()
	c := &cnitest.Container{Netns: ns, Network: network, IfName: ifName}
	c.Attach(t, env...)
	return c
}

// check calls CHECK of the whole chain and wants it to be fine.
func (c *container) check(t testing.TB) {
	t.Helper()
	if err := c.Call("check", c.env...); err != nil {
		t.Errorf("%s: CHECK of %s: %v", c.Host.Name, c.Name, err)
	}
}

// del detaches the container by the whole chain, and deletes its namespace.
func (c *container) del(t testing.TB) {
	t.Helper()
	if err := c.Call("del", c.env...); err != nil {
		t.Errorf("%s: DEL of %s: %v", c.Host.Name, c.Name, err)
	}
	c.Delete(t)
}

// serve runs a web server in a place, until the test ends. It serves files of
// the given sizes, named so, and its own name at /index.html.
func serve(t testing.TB, at testnet.Runner, name string, sizes ...int) {
	t.Helper()
	dir := t.TempDir() // the lab's hosts see the machine's /tmp
	at.Shell(t, "printf "+name+" >"+dir+"/index.html")
	for _, n := range sizes {
		at.Shell(t, fmt.Sprintf("head -c %d /dev/urandom >%s/%[1]d", n, dir))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := at.Command(ctx, "busybox", "httpd", "-f", "-p", "80", "-h", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	testnet.Eventually(t, longest, func() error { return fetched(at, "127.0.0.1", name) })
}

// fetch gets a file by HTTP; a reply that does not come within 20 s is an error.
func fetch(from testnet.Runner, url string) (string, error) {
	return from.Output(context.Background(), "timeout", "20", "busybox", "wget", "-q", "-O", "-", "http://"+url)
}

// fetched is nil when the server at an address is the one of that name.
func fetched(from testnet.Runner, at, name string) error {
	out, err := fetch(from, at+"/index.html")
	if err == nil && out != name {
		err = fmt.Errorf("got %q, want %q", out, name)
	}
	return err
}

// reach pings and wants an answer.
func reach(t testing.TB, what string, from testnet.Runner, to netip.Addr) {
	t.Helper()
	testnet.Eventually(t, longest, func() error {
		if err := testnet.Ping(context.Background(), from, to, testnet.PingOptions{Wait: 5 * time.Second}); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}

// silent wants no answer to a ping that was sent.
func silent(t testing.TB, what string, from testnet.Runner, to netip.Addr) {
	t.Helper()
	out, err := from.Output(context.Background(), "ping", "-n", "-c", "2", "-i", "0.2", "-W", "0.5", to.String())
	if err == nil || !strings.Contains(out, "2 packets transmitted, 0 received") {
		t.Errorf("%s: want no answer from %s: %v\n%s", what, to, err, out)
	}
}

// unchanged wants a host to be as before.
func unchanged(t testing.TB, h *testnet.Host, before cnitest.Snapshot) {
	t.Helper()
	if err := before.Settled(h); err != nil {
		t.Error(err)
	}
}

// table is a table as iptables-save shows it, without what every table has.
func table(t testing.TB, h *testnet.Host, save, name string) string {
	t.Helper()
	return h.Shell(t, save+" -t "+name+` | sed -n '/^:\(PREROUTING\|INPUT\|FORWARD\|OUTPUT\|POSTROUTING\) /d; s/ \[[0-9:]*\]//; /^[-:]/p'`)
}
