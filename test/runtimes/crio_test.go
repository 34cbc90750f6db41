package runtimes

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

const crioSocket = "unix:///run/crio/crio.sock"

// crioConf configures CRI-O with files of the host's own in a directory. The
// machine may have no systemd.
func crioConf(dir, programs string) string {
	return fmt.Sprintf(`[crio]
root = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
storage_driver = "overlay"
version_file = "%[1]s/version"
version_file_persist = "%[1]s/version-persist"
clean_shutdown_file = "%[1]s/clean.shutdown"
[crio.api]
listen = "/run/crio/crio.sock"
[crio.runtime]
default_runtime = "runc"
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
pinns_path = "%[2]s/pinns"
namespaces_dir = "/run/crio/ns"
container_exits_dir = "/run/crio/exits"
container_attach_socket_dir = "/run/crio/attach"
hooks_dir = []
default_capabilities = ["NET_RAW", "NET_BIND_SERVICE", "SETUID", "SETGID"]
default_ulimits = ["nofile=20000:20000"]
[crio.runtime.runtimes.runc]
runtime_path = "/usr/sbin/runc"
runtime_type = "oci"
runtime_root = "/run/runc"
monitor_path = "/usr/bin/conmon"
[crio.image]
pause_image = "%[3]s"
signature_policy = "%[1]s/policy.json"
[crio.network]
network_dir = "/etc/cni/net.d/"
plugin_dirs = ["/opt/cni/bin/"]
cni_status_grace_period = "1s"
`, dir, programs, image)
}

// startCRIO starts a CRI-O that has the image, by podman: they share a store.
func startCRIO(t *testing.T, l *testnet.Lab, h *testnet.Host) *cri {
	t.Helper()
	need(t, "podman", "conmon", "runc", "busybox")
	programs, dir := upstream(t, "crio", "pinns"), filepath.Join(h.Dir, "crio")
	h.WriteFile(t, filepath.Join(dir, "policy.json"), `{"default": [{"type": "insecureAcceptAnything"}]}`)
	h.WriteFile(t, filepath.Join(dir, "crio.conf"), crioConf(dir, programs))
	d := &daemon{host: h, path: upstream(t, "crictl") + ":" + programs + ":" + os.Getenv("PATH"),
		args: []string{"crio", "--config", filepath.Join(dir, "crio.conf"), "--config-dir", ""}}
	c := &cri{daemon: d, socket: crioSocket}
	d.ready = []string{"crictl", "--config", "/dev/null", "-r", crioSocket, "version"}
	d.run(t, "podman", "--root", "/var/lib/containers/storage", "--runroot", "/run/containers/storage", "--storage-driver", "overlay", "load", "-i", imageFile(l))
	d.start(t)
	t.Cleanup(func() {
		if _, err := c.ctl("rmp", "-f", "-a"); err != nil {
			t.Error(err)
		}
		d.stop(t)
	})
	testnet.Eventually(t, patience, c.ready)
	return c
}

// TestCRIO does what kubelet does, by crictl, with CRI-O. It is of the long
// list, for CRI-O has to be built.
func TestCRIO(t *testing.T) {
	t.Parallel()
	if !all() {
		return
	}
	row := begin(t, "CRI-O")
	l := &criLab{Lab: lab(t)}
	cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}, Chain: []cnitest.Conf{portmap, {"type": "bandwidth", "capabilities": cnitest.Conf{"bandwidth": true}}}}.Install(t, l.Lab)
	l.one, l.two = startCRIO(t, l.Lab, l.Hosts[0]), startCRIO(t, l.Lab, l.Hosts[1])
	row.version = strings.TrimPrefix(filepath.Base(upstream(t, "crio")), "crio-")
	primePortmap(t, l.Lab)
	for _, c := range []*cri{l.one, l.two} {
		c.pod(t, publish8080).remove(t) // CRI-O's own rules for ports have tables that stay
	}
	empty := look(t, l.Lab)
	l.web = l.two.pod(t, publish8080)
	checkAll(t, row, l.Lab, l, []check[*criLab]{
		{"ping and HTTP to the peer", criPeer}, {"hostPort from the peer host", criPort},
		{"STATUS and NetworkReady", crioStatus}, {"ADD, CHECK, one DEL", crioCalls}, {"GC and CHECK at a restart", crioRestart},
	})
	l.web.remove(t)
	row.check(t, "nothing left", func(t *testing.T) { nothingLeft(t, l.Lab, empty) })
	row.saw(t, l.Lab)
	row.only(t, "VERSION", "STATUS", "GC", "ADD", "CHECK", "DEL (prevResult)")
}

// crioStatus ends OVS's daemons: with cni_status_grace_period set, CRI-O hears of
// it by STATUS every few seconds.
func crioStatus(t *testing.T, l *criLab) {
	h := l.one.host
	if err := h.KillOVSDB(t.Context()); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, patience, func() error {
		if err := l.one.ready(); err == nil || !strings.Contains(err.Error(), "connect to OVSDB") {
			return fmt.Errorf("want the network not to be ready: %v", err)
		}
		return nil
	})
	if err := h.StartOVSDB(t.Context()); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, patience, l.one.ready)
}

// crioCalls runs a pod and removes it.
func crioCalls(t *testing.T, l *criLab) {
	was := len(calls(t, l.one.host))
	l.one.pod(t, publish8080).remove(t)
	if since := kinds(calls(t, l.one.host)[was:]); !slices.Equal(since, []string{"ADD", "CHECK", "DEL (prevResult)"}) {
		t.Errorf("a pod's life has called %q: tell docs/runtimes.md", since)
	}
}

// crioRestart restarts CRI-O under a running pod, after somebody has left an
// attachment behind that CRI-O does not know: its GC takes that away, and the pod
// goes on.
func crioRestart(t *testing.T, l *criLab) {
	h := l.one.host
	before := cnitest.MustLook(t, h)
	p := l.one.pod(t, nil)
	addrs := p.addrs(t)
	l.one.stop(t)
	lost := cnitest.Add(t, h, "ovsnet", "lost")
	left := lost.Addr(t, false)
	h.Shell(t, "rm -f /var/lib/cni/results/ovsnet-cnitool-*")
	lost.Delete(t)
	was := len(calls(t, h))
	l.one.start(t)
	testnet.Eventually(t, patience, l.one.ready)
	testnet.Eventually(t, patience, func() error {
		since := kinds(calls(t, h)[was:])
		for _, kind := range []string{"GC", "CHECK"} {
			if !slices.Contains(since, kind) {
				return fmt.Errorf("no %s at the start: %q", kind, since)
			}
		}
		return nil
	})
	if out := h.Shell(t, "ls /var/lib/cni/networks/ovsnet"); slices.Contains(strings.Fields(out), left.String()) {
		t.Errorf("GC leaves the lease of %s: %s", left, out)
	}
	shell(p.exec).reaches(t, append([]netip.Addr{}, l.web.addrs(t)...)...)
	shell(onHost(l.two.host)).reaches(t, addrs...)
	p.remove(t)
	if err := before.Settled(h); err != nil {
		t.Errorf("after GC: %v", err)
	}
}
