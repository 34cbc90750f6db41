package runtimes

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// A nerdctl is nerdctl on a host, with its containerd.
type nerdctl struct{ *daemon }

// A nerdctlContainer is a container that serves.
type nerdctlContainer struct {
	nerdctl
	name string
}

// container runs one with these options.
func (n nerdctl) container(t *testing.T, name string, options ...string) nerdctlContainer {
	t.Helper()
	n.run(t, "nerdctl", slices.Concat([]string{"run", "-d", "--name", name}, options, []string{image}, serve)...)
	return nerdctlContainer{n, name}
}

// exec is a shell in the container.
func (c nerdctlContainer) exec(script string) (string, error) {
	return c.output("nerdctl", "exec", c.name, "sh", "-ec", script)
}

func (c nerdctlContainer) addrs(t *testing.T, dev string) []netip.Addr {
	t.Helper()
	return shell(c.exec).addrs(t, dev)
}

// do is a command of nerdctl on the container.
func (c nerdctlContainer) do(t *testing.T, command ...string) {
	t.Helper()
	c.run(t, "nerdctl", append(command, c.name)...)
}

// A nerdctlLab is two hosts with nerdctl and two networks, ovsnet and red. The
// container web runs on the second host.
type nerdctlLab struct {
	*testnet.Lab
	one, two nerdctl
	web      nerdctlContainer
}

func TestNerdctl(t *testing.T) {
	t.Parallel()
	eachRelease(t, testNerdctl)
}

func testNerdctl(t *testing.T, r release) {
	row := begin(t, "nerdctl, "+r.name)
	l := newNerdctlLab(t, r)
	row.version = l.one.run(t, "nerdctl", "--version") + ", " + containerdVersion(t, l.one.daemon)
	primePortmap(t, l.Lab)
	empty := look(t, l.Lab)
	l.web = l.two.container(t, "web", "--net", "ovsnet", "-p", "8080:80")
	checkAll(t, row, l.Lab, l, []check[*nerdctlLab]{
		{"ping and HTTP to the peer", nerdctlPeer},
		{"-p from the peer host", nerdctlPort},
		{"a network of nerdctl's own", nerdctlOwnNetwork},
		{"--ip and --ip6", nerdctlAddress},
		{"a MAC address", nerdctlMAC},
		{"two --net", nerdctlNetworks},
		{"stop and start", nerdctlStop},
		{"rm -f", nerdctlRemove},
		{"kill -9 and start", nerdctlKill},
		{"restart of containerd", nerdctlRestart},
	})
	l.web.do(t, "rm", "-f")
	row.check(t, "nothing left", func(t *testing.T) { nothingLeft(t, l.Lab, empty) })
	row.saw(t, l.Lab)
	// With a network namespace only after an ADD that failed.
	row.only(t, "ADD", "DEL", "DEL (no netns)", "DEL (no netns, prevResult)")
}

func newNerdctlLab(t *testing.T, r release) *nerdctlLab {
	t.Helper()
	dir := upstream(t, "nerdctl")
	l := &nerdctlLab{Lab: lab(t)}
	ovsnet, red := twoNetworks(r.cni)
	ovsnet.Install(t, l.Lab)
	red.Install(t, l.Lab)
	var ns []nerdctl
	for _, h := range l.Hosts {
		d := startContainerd(t, l.Lab, h, r, containerdConf, "default")
		d.path = dir + ":" + d.path
		ns = append(ns, nerdctl{d})
	}
	l.one, l.two = ns[0], ns[1]
	return l
}

func nerdctlPeer(t *testing.T, l *nerdctlLab) {
	c := l.one.container(t, "c1", "--net", "ovsnet")
	shell(c.exec).reaches(t, l.web.addrs(t, "eth0")...)
	shell(l.web.exec).reaches(t, c.addrs(t, "eth0")...)
	c.do(t, "rm", "-f")
}

// nerdctlOwnNetwork shows what a conflist without nerdctl's label brings along:
// nerdctl writes another, and needs its plugins.
func nerdctlOwnNetwork(t *testing.T, l *nerdctlLab) {
	l.one.run(t, "test", "-f", "/etc/cni/net.d/nerdctl-bridge.conflist")
	l.one.run(t, "sh", "-ec", "mkdir -p /run/empty /run/conf; cp /etc/cni/net.d/10-ovsnet.conflist /run/conf")
	if out, err := l.one.output("nerdctl", "--cni-path", "/run/empty", "--cni-netconfpath", "/run/conf", "run", "--rm", "--net", "ovsnet", image); err == nil || !strings.Contains(err.Error(), `needs CNI plugin`) {
		t.Errorf("nerdctl needs none of its plugins: %s %v: tell docs/runtimes.md", out, err)
	}
}

func nerdctlPort(t *testing.T, l *nerdctlLab) {
	port := netip.AddrPortFrom(l.two.host.Addr4, 8080)
	onHost(l.one.host).fetches(t, port)
	c := l.one.container(t, "c1", "--net", "ovsnet")
	shell(c.exec).fetches(t, port)
	c.do(t, "rm", "-f")
}

func nerdctlAddress(t *testing.T, l *nerdctlLab) {
	addr, addr6 := netip.MustParseAddr("192.168.1.77"), netip.MustParseAddr("fd92:1::77")
	c := l.one.container(t, "c1", "--net", "ovsnet", "--ip", addr.String(), "--ip6", addr6.String())
	if got, want := c.addrs(t, "eth0"), []netip.Addr{addr, addr6}; !slices.Equal(got, want) {
		t.Errorf("want %s, eth0 has %s", want, got)
	}
	shell(l.web.exec).reaches(t, addr, addr6)
	if out, err := l.one.output("nerdctl", "run", "-d", "--name", "taken", "--net", "ovsnet", "--ip", addr.String(), image); err == nil || !strings.Contains(err.Error(), addr.String()) {
		t.Errorf("%s a second time: %s %v", addr, out, err)
	}
	l.one.run(t, "nerdctl", "rm", "-f", "taken")
	c.do(t, "rm", "-f")
}

// nerdctlMAC asks for a MAC address. nerdctl refuses to, by itself, unless the
// first plugin's type is bridge or macvlan; the annotation that its option
// becomes it lets pass.
func nerdctlMAC(t *testing.T, l *nerdctlLab) {
	const mac = "02:00:00:00:00:77"
	was := len(calls(t, l.one.host))
	if out, err := l.one.output("nerdctl", "run", "-d", "--net", "ovsnet", "--mac-address", mac, image); err == nil || !strings.Contains(err.Error(), "must be one of: [bridge macvlan]") {
		t.Errorf("nerdctl takes --mac-address with ovs-gre: %s %v: tell docs/runtimes.md", out, err)
	}
	if since := verbs(calls(t, l.one.host)[was:]); since != "" {
		t.Errorf("a refused option calls %s", since)
	}
	c := l.one.container(t, "c1", "--net", "ovsnet", "--annotation", "nerdctl/mac-address="+mac)
	if got, err := c.exec("cat /sys/class/net/eth0/address"); got != mac {
		t.Errorf("want %s, eth0 has %s %v", mac, got, err)
	}
	shell(c.exec).reaches(t, l.web.addrs(t, "eth0")...)
	c.do(t, "rm", "-f")
}

// nerdctlNetworks has a container in two networks, which nerdctl adds at the
// same time.
func nerdctlNetworks(t *testing.T, l *nerdctlLab) {
	was := len(calls(t, l.one.host))
	c := l.one.container(t, "c1", "--net", "ovsnet", "--net", "red")
	d := l.two.container(t, "c2", "--net", "ovsnet", "--net", "red")
	for _, dev := range []string{"eth0", "eth1"} {
		shell(c.exec).reaches(t, d.addrs(t, dev)...)
		shell(d.exec).reaches(t, c.addrs(t, dev)...)
	}
	c.do(t, "rm", "-f")
	d.do(t, "rm", "-f")
	added := map[string]int{}
	for _, call := range calls(t, l.one.host)[was:] {
		if call.verb == "ADD" {
			added[call.ifname]++
		}
	}
	if added["eth0"] != 1 || added["eth1"] != 1 {
		t.Errorf("ADDs: %v", added)
	}
}

func nerdctlStop(t *testing.T, l *nerdctlLab) {
	before := cnitest.MustLook(t, l.one.host)
	c := l.one.container(t, "c1", "--net", "ovsnet", "-p", "8081:80")
	c.do(t, "stop", "-t", "1")
	if err := before.Settled(l.one.host); err != nil {
		t.Errorf("stopped: %v", err)
	}
	c.do(t, "start")
	shell(l.web.exec).reaches(t, c.addrs(t, "eth0")...)
	onHost(l.two.host).fetches(t, netip.AddrPortFrom(l.one.host.Addr4, 8081))
	c.do(t, "stop", "-t", "1")
	c.do(t, "rm")
}

func nerdctlRemove(t *testing.T, l *nerdctlLab) {
	c := l.one.container(t, "c1", "--net", "ovsnet", "-p", "8081:80")
	shell(l.web.exec).reaches(t, c.addrs(t, "eth0")...)
	c.do(t, "rm", "-f")
}

// nerdctlKill kills a container's process: nerdctl hears of it, and calls DEL,
// only when it is asked for something.
func nerdctlKill(t *testing.T, l *nerdctlLab) {
	c := l.one.container(t, "c1", "--net", "ovsnet")
	l.one.kill(t, c)
	c.do(t, "start")
	shell(l.web.exec).reaches(t, c.addrs(t, "eth0")...)
	l.one.kill(t, c)
	c.do(t, "rm")
}

// kill kills the container's process and waits until containerd knows it.
func (n nerdctl) kill(t *testing.T, c nerdctlContainer) {
	t.Helper()
	n.run(t, "kill", "-9", n.run(t, "nerdctl", "inspect", "-f", "{{.State.Pid}}", c.name))
	testnet.Eventually(t, patience, func() error {
		state, err := n.output("nerdctl", "inspect", "-f", "{{.State.Status}}", c.name)
		if err == nil && state != "exited" {
			err = fmt.Errorf("%s is %s", c.name, state)
		}
		return err
	})
}

// nerdctlRestart restarts containerd under a running container.
func nerdctlRestart(t *testing.T, l *nerdctlLab) {
	c := l.one.container(t, "c1", "--net", "ovsnet")
	was := len(calls(t, l.one.host))
	l.one.stop(t)
	shell(l.web.exec).reaches(t, netip.MustParseAddr(leasedTo(t, l.one.host)))
	l.one.start(t)
	shell(c.exec).reaches(t, l.web.addrs(t, "eth0")...)
	if since := verbs(calls(t, l.one.host)[was:]); since != "" {
		t.Errorf("a restart of containerd calls %s", since)
	}
	c.do(t, "rm", "-f")
}

// leasedTo is the only IPv4 address that host-local holds.
func leasedTo(t *testing.T, h *testnet.Host) string {
	t.Helper()
	return strings.TrimSpace(h.Shell(t, "ls /var/lib/cni/networks/ovsnet | grep '^[0-9.]*$'"))
}
