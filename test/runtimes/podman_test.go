package runtimes

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// podmanConf tells podman to use CNI; docs/runtimes.md has its section network.
// The rest is for a machine without systemd and with cgroups of version 1.
const podmanConf = `[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]

[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
log_driver = "k8s-file"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
`

// A podman is podman on a host. It has no daemon.
type podman struct {
	*daemon
	name string
}

// exec is a shell in the container.
func (p podman) exec(script string) (string, error) {
	return p.output("podman", "exec", p.name, "sh", "-ec", script)
}

func (p podman) addrs(t *testing.T, dev string) []netip.Addr {
	t.Helper()
	return shell(p.exec).addrs(t, dev)
}

// container runs one with these options; ping wants the capability.
func (p podman) container(t *testing.T, name string, options ...string) podman {
	t.Helper()
	p.run(t, "podman", slices.Concat([]string{"run", "-d", "--cap-add", "NET_RAW", "--name", name}, options, []string{image}, serve)...)
	return podman{p.daemon, name}
}

// do is a command of podman on the container.
func (p podman) do(t *testing.T, command ...string) {
	t.Helper()
	p.run(t, "podman", append(command, p.name)...)
}

// A podmanLab is two hosts with podman and two networks, ovsnet and red. The
// container web runs on the second host.
type podmanLab struct {
	*testnet.Lab
	one, two, web podman
}

func newPodmanLab(t *testing.T) *podmanLab {
	t.Helper()
	need(t, "podman", "conmon", "runc", "busybox")
	dir, err := plugins()
	if err != nil {
		t.Fatal(err)
	}
	l := &podmanLab{Lab: labWith(t, testnet.Options{PluginDir: dir, OwnDirs: append([]string{"/etc/containers"}, ownDirs...)})}
	var ps []podman
	for _, h := range l.Hosts {
		h.WriteFile(t, "/etc/containers/containers.conf", podmanConf)
		h.WriteFile(t, "/etc/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
		p := podman{daemon: &daemon{host: h, path: os.Getenv("PATH")}}
		p.run(t, "podman", "load", "-i", imageFile(l.Lab))
		t.Cleanup(func() {
			if _, err := p.output("podman", "rm", "-f", "-t", "0", "-a"); err != nil {
				t.Error(err)
			}
		})
		ps = append(ps, p)
	}
	l.one, l.two = ps[0], ps[1]
	return l
}

// TestPodman has podman with its CNI backend on two hosts.
func TestPodman(t *testing.T) {
	t.Parallel()
	row := begin(t, "podman, CNI")
	l := newPodmanLab(t)
	row.version = strings.Replace(l.one.run(t, "podman", "--version"), " version", "", 1)
	ovsnet, red := twoNetworks("1.0.0")
	ovsnet.Install(t, l.Lab)
	red.Install(t, l.Lab)
	primePortmap(t, l.Lab)
	empty := look(t, l.Lab)
	l.web = l.two.container(t, "web", "--network", "ovsnet", "-p", "8080:80")
	checkAll(t, row, l.Lab, l, []check[*podmanLab]{
		{"ping and HTTP to the peer", podmanPeer},
		{"-p from the peer host", podmanPort},
		{"--ip and --mac-address", podmanAddress},
		{"two --network", podmanNetworks},
		{"stop and start", podmanStop},
		{"kill", podmanKill},
		{"network ls and inspect", podmanNetworkLs},
		{"cniVersion 1.1.0", podmanLatest},
	})
	l.web.do(t, "rm", "-f", "-t", "0")
	row.check(t, "nothing left", func(t *testing.T) { nothingLeft(t, l.Lab, empty) })
	row.saw(t, l.Lab)
	row.only(t, "VERSION", "ADD", "DEL (prevResult)", "DEL")
}

func podmanPeer(t *testing.T, l *podmanLab) {
	c := l.one.container(t, "c1", "--network", "ovsnet")
	shell(c.exec).reaches(t, l.web.addrs(t, "eth0")...)
	shell(l.web.exec).reaches(t, c.addrs(t, "eth0")...)
	c.do(t, "rm", "-f", "-t", "0")
}

func podmanPort(t *testing.T, l *podmanLab) {
	port := netip.AddrPortFrom(l.two.host.Addr4, 8080)
	onHost(l.one.host).fetches(t, port)
	c := l.one.container(t, "c1", "--network", "ovsnet")
	shell(c.exec).fetches(t, port)
	c.do(t, "rm", "-f", "-t", "0")
}

func podmanAddress(t *testing.T, l *podmanLab) {
	const mac = "02:00:00:00:00:77"
	addr := netip.MustParseAddr("192.168.1.77")
	c := l.one.container(t, "c1", "--network", "ovsnet", "--ip", addr.String(), "--mac-address", mac)
	if got := c.addrs(t, "eth0"); !slices.Contains(got, addr) {
		t.Errorf("want %s, eth0 has %s", addr, got)
	}
	if got, err := c.exec("cat /sys/class/net/eth0/address"); got != mac {
		t.Errorf("want %s, eth0 has %s %v", mac, got, err)
	}
	shell(l.web.exec).reaches(t, addr)
	if out, err := l.one.output("podman", "run", "-d", "--name", "taken", "--network", "ovsnet", "--ip", addr.String(), image); err == nil || !strings.Contains(err.Error(), addr.String()) {
		t.Errorf("%s a second time: %s %v", addr, out, err)
	}
	l.one.run(t, "podman", "rm", "-f", "-t", "0", "taken")
	c.do(t, "rm", "-f", "-t", "0")
}

// podmanNetworks has containers in two networks, with an address of its own in one.
func podmanNetworks(t *testing.T, l *podmanLab) {
	c := l.one.container(t, "c1", "--network", "ovsnet", "--network", "red:ip=10.9.1.77")
	d := l.two.container(t, "c2", "--network", "ovsnet", "--network", "red")
	seen := false
	for _, dev := range []string{"eth0", "eth1"} {
		seen = seen || slices.Contains(c.addrs(t, dev), netip.MustParseAddr("10.9.1.77"))
		shell(c.exec).reaches(t, d.addrs(t, dev)...)
		shell(d.exec).reaches(t, c.addrs(t, dev)...)
	}
	if !seen {
		t.Error("no interface has the address that was asked for")
	}
	c.do(t, "rm", "-f", "-t", "0")
	d.do(t, "rm", "-f", "-t", "0")
}

func podmanStop(t *testing.T, l *podmanLab) {
	before := cnitest.MustLook(t, l.one.host)
	c := l.one.container(t, "c1", "--network", "ovsnet", "-p", "8081:80")
	c.do(t, "stop", "-t", "0")
	if err := before.Settled(l.one.host); err != nil {
		t.Errorf("stopped: %v", err)
	}
	c.do(t, "start")
	shell(l.web.exec).reaches(t, c.addrs(t, "eth0")...)
	onHost(l.two.host).fetches(t, netip.AddrPortFrom(l.one.host.Addr4, 8081))
	c.do(t, "rm", "-f", "-t", "0")
}

// podmanKill kills the container's process: conmon has podman clean up at once.
func podmanKill(t *testing.T, l *podmanLab) {
	before := cnitest.MustLook(t, l.one.host)
	c := l.one.container(t, "c1", "--network", "ovsnet")
	l.one.run(t, "kill", "-9", l.one.run(t, "podman", "inspect", "-f", "{{.State.Pid}}", "c1"))
	if err := before.Settled(l.one.host); err != nil {
		t.Errorf("killed: %v", err)
	}
	c.do(t, "rm")
}

func podmanNetworkLs(t *testing.T, l *podmanLab) {
	if out := l.one.run(t, "podman", "network", "ls"); !strings.Contains(out, "ovsnet") || !strings.Contains(out, "ovs-gre") {
		t.Errorf("podman network ls does not have ovsnet:\n%s", out)
	}
	if out := l.one.run(t, "podman", "network", "inspect", "ovsnet"); !strings.Contains(out, `"driver": "ovs-gre"`) {
		t.Errorf("podman network inspect ovsnet:\n%s", out)
	}
}

// podmanLatest has a conflist that podman's libcni cannot take: the run fails
// after our ADD, and nothing is left all the same. doctor says so beforehand.
func podmanLatest(t *testing.T, l *podmanLab) {
	refused(t, l.one.host, func() error {
		_, err := l.one.output("podman", "run", "-d", "--name", "c1", "--network", "ovsnet", image)
		return err
	})
	l.one.run(t, "podman", "rm", "-f", "-t", "0", "c1")
}
