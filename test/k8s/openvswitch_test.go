package k8s

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/deploy/image/archive"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// library is a line of ldd.
var library = regexp.MustCompile(`(/\S+) \(0x`)

// openvswitchImage is what deploy/image/openvswitch makes, from the Open vSwitch
// of this machine in place of a base image's.
func openvswitchImage(t testing.TB, dir, ref string) string {
	t.Helper()
	files := cnitest.Busybox(t)
	files = append(files,
		archive.File{Path: "start", From: project(t, "deploy/image/openvswitch/start")},
		archive.File{Path: "usr/share/openvswitch/vswitch.ovsschema", From: "/usr/share/openvswitch/vswitch.ovsschema"},
		archive.File{Path: "var/run", Link: "/run"})
	files = append(files, withLibraries(t, "ovsdb-server", "ovs-vswitchd", "ovsdb-tool", "ovs-vsctl", "ovs-appctl", "ovs-ofctl")...)
	return writeImage(t, dir, archive.Image{Ref: ref, Arch: runtime.GOARCH, Env: []string{"PATH=/bin"}, Files: files, Entrypoint: []string{"/start"}})
}

// withLibraries are programs of this machine, in /bin, with the shared libraries
// that they need.
func withLibraries(t testing.TB, programs ...string) (files []archive.File) {
	t.Helper()
	libraries := map[string]bool{}
	for _, program := range programs {
		at, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, archive.File{Path: "bin/" + program, From: at})
		out, err := exec.Command("ldd", at).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range library.FindAllStringSubmatch(string(out), -1) {
			libraries[m[1]] = true
		}
	}
	for l := range libraries {
		files = append(files, archive.File{Path: l, From: l})
	}
	return files
}

// tun gives the container the device that OVS's userspace datapath makes its
// ports with; the kernel's needs none.
func (c *cluster) tun(text string) string {
	if c.lab.Datapath != testnet.DatapathNetdev {
		return text
	}
	const mount, volume = "            - {name: modules, mountPath: /lib/modules, readOnly: true}\n", "        - name: modules\n"
	text = strings.Replace(text, mount, mount+"            - {name: tun, mountPath: /dev/net/tun}\n", 1)
	return strings.Replace(text, volume, "        - name: tun\n          hostPath: {path: /dev/net/tun}\n"+volume, 1)
}

// TestOpenVSwitch has Open vSwitch in a container, on a node that has none.
func TestOpenVSwitch(t *testing.T) {
	lab := testnet.New(t, testnet.Options{Hosts: 1, NoOVS: true})
	c := newCluster(t, lab, options{proxy: "nftables"})
	const ref = "localhost/ovs-gre-openvswitch:"
	text := c.tun(c.manifests(t, "ovs-gre-openvswitch.yaml"))
	at := strings.Index(text, ref)
	if at < 0 {
		t.Fatal("no such image in the manifests: " + ref)
	}
	c.images = append(images(t, c.dir), agentImage(t), openvswitchImage(t, c.dir, strings.Fields(text[at:])[0]))
	n := c.join(t, lab.Hosts[0])
	c.step(t, "Open vSwitch in a container", func(t *testing.T) string {
		begin := time.Now()
		c.apply(t, text)
		n.ready(t, patience)
		ready := time.Since(begin)
		c.create(t, on(n, "a", server(manifest{"app": "web"}, nil, nil)), on(n, "b", server(manifest{"app": "web"}, nil, nil)))
		c.pods(t, "app=web", 2)
		c.pairs(t)
		took := c.restartContainer(t, n)
		return fmt.Sprintf("node ready after %.1f s; killed, it is back with its bridges after %.1f s", ready.Seconds(), took.Seconds())
	})
}

// restartContainer kills the node's ovs-vswitchd and ovsdb-server, which are a
// container's, and waits until the pods answer again.
func (c *cluster) restartContainer(t *testing.T, n *node) time.Duration {
	t.Helper()
	bridge := func() (string, error) {
		return n.Output(context.Background(), "ovs-vsctl", "--timeout=5", "get", "bridge", "obr0", "_uuid")
	}
	was, err := bridge()
	if err != nil {
		t.Fatal(err)
	}
	pods := c.pods(t, "app=web", 2)
	n.Shell(t, "pkill -KILL -x ovs-vswitchd; pkill -KILL -x ovsdb-server")
	begin := time.Now()
	testnet.Eventually(t, patience, func() error {
		if _, err := os.Stat(n.Dir + "/etc/openvswitch/conf.db"); err != nil {
			t.Fatal(err) // the node's, not the container's
		}
		is, err := bridge()
		if err == nil && is != was {
			t.Fatalf("another bridge than before: %s, %s", was, is)
		}
		for _, p := range pods {
			left, getErr := unanswered(n.Host, 1, p.urls()...)
			if left != "" {
				getErr = errors.New(left)
			}
			err = errors.Join(err, getErr)
		}
		return err
	})
	took := time.Since(begin)
	c.pairs(t)
	return took
}
