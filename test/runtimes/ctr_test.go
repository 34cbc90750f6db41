package runtimes

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// A ctrContainer is a container that `ctr run --rm --cni` runs: ctr, not the
// daemon, calls the plugins, and stays until the container ends.
type ctrContainer struct {
	daemon *daemon
	name   string
	cmd    *exec.Cmd
	execs  int
}

// ctrName is a name of its own on this machine: runc's cgroups are named after
// the container, and are not the host's own.
func ctrName(l *testnet.Lab, h *testnet.Host, name string) string {
	return filepath.Base(l.Dir) + "-" + h.Name + "-" + name
}

// ctrRun starts a container that serves, and waits for it.
func ctrRun(t *testing.T, l *testnet.Lab, d *daemon) *ctrContainer {
	t.Helper()
	c := &ctrContainer{daemon: d, name: ctrName(l, d.host, "web")}
	c.cmd = d.host.Command(context.Background(), "ctr", append([]string{"run", "--rm", "--cni", image, c.name}, serve...)...)
	c.cmd.Env = []string{"PATH=" + d.path}
	var said strings.Builder
	c.cmd.Stdout, c.cmd.Stderr = &said, &said
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.cmd.Wait() }()
	testnet.Eventually(t, patience, func() error {
		select {
		case err := <-ended:
			t.Fatalf("%s: ctr run: %v\n%s", d.host.Name, err, said.String())
		default:
		}
		_, err := c.exec("wget -q -O - http://127.0.0.1/index.html")
		return err
	})
	t.Cleanup(func() { c.end(t, ended) })
	return c
}

// end kills the container; ctr then sees to the rest.
func (c *ctrContainer) end(t *testing.T, ended chan error) {
	t.Helper()
	if _, err := c.daemon.output("ctr", "tasks", "kill", "--signal", "KILL", c.name); err != nil {
		t.Error(err)
	}
	// The container's exit status is that of a killed one.
	if err := <-ended; err == nil || !errors.As(err, new(*exec.ExitError)) {
		t.Errorf("%s: ctr run: %v", c.name, err)
	}
}

// exec is a shell in the container.
func (c *ctrContainer) exec(script string) (string, error) {
	c.execs++
	return c.daemon.output("ctr", "tasks", "exec", "--exec-id", "e"+strconv.Itoa(c.execs), c.name, "sh", "-ec", script)
}

func TestCtr(t *testing.T) {
	t.Parallel()
	eachRelease(t, testCtr)
}

func testCtr(t *testing.T, r release) {
	row := begin(t, "ctr, "+r.name)
	l := lab(t)
	network := cnitest.Network{Version: r.cni, Chain: []cnitest.Conf{portmap}}
	network.Install(t, l)
	var ds []*daemon
	for _, h := range l.Hosts {
		ds = append(ds, startContainerd(t, l, h, r, containerdConf, "default"))
	}
	row.version = containerdVersion(t, ds[0])
	before := look(t, l)
	row.check(t, "ping and HTTP to the peer", func(t *testing.T) {
		one, two := ctrRun(t, l, ds[0]), ctrRun(t, l, ds[1])
		shell(one.exec).reaches(t, shell(two.exec).addrs(t, "eth0")...)
		shell(two.exec).reaches(t, shell(one.exec).addrs(t, "eth0")...)
	})
	row.check(t, "nothing left", func(t *testing.T) { nothingLeft(t, l, before) })
	row.saw(t, l)
	row.only(t, "ADD", "DEL (no netns)", "DEL (no netns, prevResult)")
	row.check(t, "ovs-grectl gc after ctr -d", func(t *testing.T) { ctrForgets(t, l, ds[0]) })
	nothingLeft(t, l, before)
	if r.cni != "1.1.0" {
		network.Version = "1.1.0"
		network.Install(t, l)
		row.check(t, "cniVersion 1.1.0", func(t *testing.T) { ctrTooNew(t, l, ds[0]) })
		nothingLeft(t, l, before)
	}
}

// ctrForgets shows what `ctr run -d --cni` does: it never calls DEL. What it
// leaves `ovs-grectl gc` takes away.
func ctrForgets(t *testing.T, l *testnet.Lab, d *daemon) {
	was := len(calls(t, d.host))
	name := ctrName(l, d.host, "forgotten")
	d.run(t, "ctr", append([]string{"run", "-d", "--cni", image, name}, serve...)...)
	addr := shell(func(script string) (string, error) {
		return d.output("ctr", "tasks", "exec", "--exec-id", "e", name, "sh", "-ec", script)
	}).addrs(t, "eth0")[0]
	if out, err := onHost(d.host)("ping -c 1 -W 10 " + addr.String()); err != nil {
		t.Errorf("%v%s", err, out)
	}
	d.run(t, "ctr", "tasks", "delete", "--force", name)
	d.run(t, "ctr", "containers", "delete", name)
	if since := verbs(calls(t, d.host)[was:]); since != "1 ADD" {
		t.Errorf("want an ADD and no DEL of ctr -d, there are %s: tell docs/runtimes.md", since)
	}
	if !leased(t, d.host, addr) {
		t.Errorf("%s: %s is not leased any more: who has removed it?", d.host.Name, addr)
	}
	d.run(t, "/opt/cni/bin/ovs-grectl", "gc")
	// libcni's own memory of the container stays until somebody calls DEL.
	d.run(t, "rm", "/var/lib/cni/results/ovsnet-default-"+name+"-eth0")
	if leased(t, d.host, addr) {
		t.Errorf("%s: ovs-grectl gc leaves %s leased", d.host.Name, addr)
	}
}

// ctrTooNew shows what a ctr does that does not know cniVersion 1.1.0: it fails
// when the plugins have done their work. With --rm it calls DEL, but the
// container stays.
func ctrTooNew(t *testing.T, l *testnet.Lab, d *daemon) {
	was := len(calls(t, d.host))
	name := ctrName(l, d.host, "new")
	out, err := d.output("ctr", "run", "--rm", "--cni", image, name, "true")
	if err == nil || !strings.Contains(err.Error(), `unsupported CNI result version "1.1.0"`) {
		t.Errorf("ctr takes cniVersion 1.1.0: %s %v: tell docs/runtimes.md", out, err)
	}
	if since := verbs(calls(t, d.host)[was:]); since != "1 ADD, 1 DEL (no netns)" {
		t.Errorf("want an ADD and a DEL, there are %s: tell docs/runtimes.md", since)
	}
	d.run(t, "ctr", "tasks", "delete", "--force", name)
	d.run(t, "ctr", "containers", "delete", name)
}

// leased reports whether host-local holds an address.
func leased(t *testing.T, h *testnet.Host, addr netip.Addr) bool {
	t.Helper()
	return h.Shell(t, "ls /var/lib/cni/networks/ovsnet 2>/dev/null | grep -Fx '"+addr.String()+"' || true") != ""
}
