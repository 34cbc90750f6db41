package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// criConf configures containerd's CRI of a generation. restrict_oom_score_adj is
// for a machine without CAP_SYS_RESOURCE.
func criConf(r release) string {
	if r.dir == "" {
		return `version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "` + image + `"
restrict_oom_score_adj = true
`
	}
	return `version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "` + image + `"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
`
}

// A cri is crictl on a host, with its containerd.
type cri struct {
	*daemon
	socket string
	pods   int
}

const criSocket = "unix:///run/containerd/containerd.sock"

func (c *cri) ctl(args ...string) (string, error) {
	return c.output("crictl", append([]string{"--config", "/dev/null", "-r", c.socket, "-i", c.socket, "-t", patience.String()}, args...)...)
}

func (c *cri) mustCtl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.ctl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A pod is one with a container that serves.
type pod struct {
	*cri
	sandbox, container string
}

// ownPID is how kubelet has a container's processes, in a namespace of their own.
var ownPID = cnitest.Conf{"security_context": cnitest.Conf{"namespace_options": cnitest.Conf{"pid": 1}}}

// podConf is what kubelet would ask for.
func (c *cri) podConf(more cnitest.Conf) string {
	c.pods++
	conf := cnitest.Conf{
		"metadata":   cnitest.Conf{"name": fmt.Sprintf("pod%d", c.pods), "namespace": "default", "uid": fmt.Sprintf("%s-%d", c.host.Name, c.pods)},
		"dns_config": cnitest.Conf{"servers": []string{"192.0.2.53"}, "searches": []string{"example.org"}},
		"linux":      ownPID,
	}
	for k, v := range more {
		conf[k] = v
	}
	raw, err := json.Marshal(conf)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// runp makes a sandbox, and a network with it, from a file.
func (c *cri) runp(t *testing.T, more cnitest.Conf) (string, error) {
	t.Helper()
	c.host.WriteFile(t, "/run/pod.json", c.podConf(more))
	return c.ctl("runp", "/run/pod.json")
}

// pod runs one.
func (c *cri) pod(t *testing.T, more cnitest.Conf) pod {
	t.Helper()
	sandbox, err := c.runp(t, more)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(cnitest.Conf{"metadata": cnitest.Conf{"name": "web"}, "image": cnitest.Conf{"image": image}, "command": serve, "linux": ownPID})
	if err != nil {
		t.Fatal(err)
	}
	c.host.WriteFile(t, "/run/container.json", string(raw))
	id := c.mustCtl(t, "create", sandbox, "/run/container.json", "/run/pod.json")
	c.mustCtl(t, "start", id)
	return pod{c, sandbox, id}
}

// exec is a shell in the pod's container.
func (p pod) exec(script string) (string, error) {
	return p.ctl("exec", "--sync", p.container, "sh", "-ec", script)
}

func (p pod) addrs(t *testing.T) []netip.Addr {
	t.Helper()
	return shell(p.exec).addrs(t, "eth0")
}

// remove stops and removes it, as kubelet does.
func (p pod) remove(t *testing.T) {
	t.Helper()
	p.mustCtl(t, "stop", "--timeout", "0", p.container)
	p.mustCtl(t, "stopp", p.sandbox)
	p.mustCtl(t, "rmp", p.sandbox)
}

// A criLab is two hosts with CRI. The pod web runs on the second one, and
// publishes port 8080.
type criLab struct {
	*testnet.Lab
	release  release
	one, two *cri
	web      pod
}

// publish8080 publishes the pod's port 80.
var publish8080 = cnitest.Conf{"port_mappings": []cnitest.Conf{{"protocol": 0, "container_port": 80, "host_port": 8080}}}

func newCRILab(t *testing.T, r release) *criLab {
	t.Helper()
	dir := upstream(t, "crictl")
	l := &criLab{Lab: lab(t), release: r}
	cnitest.Network{Version: r.cni, OVSGRE: cnitest.Conf{"ipMasq": true},
		Chain: []cnitest.Conf{portmap, {"type": "bandwidth", "capabilities": cnitest.Conf{"bandwidth": true}}}}.Install(t, l.Lab)
	var cs []*cri
	for _, h := range l.Hosts {
		d := startContainerd(t, l.Lab, h, r, criConf(r), "k8s.io")
		d.path = dir + ":" + d.path
		c := &cri{daemon: d, socket: criSocket}
		t.Cleanup(func() {
			if _, err := c.ctl("rmp", "-f", "-a"); err != nil {
				t.Error(err)
			}
		})
		testnet.Eventually(t, patience, c.ready)
		cs = append(cs, c)
	}
	l.one, l.two = cs[0], cs[1]
	return l
}

// TestCRI does what kubelet does, by crictl, with containerd of each generation.
// It is of the long list, for crictl has to be built.
func TestCRI(t *testing.T) {
	t.Parallel()
	if !all() {
		return
	}
	eachRelease(t, testCRI)
}

func testCRI(t *testing.T, r release) {
	row := begin(t, "CRI, "+r.name)
	l := newCRILab(t, r)
	row.version = containerdVersion(t, l.one.daemon)
	tests := []check[*criLab]{
		{"ping and HTTP to the peer", criPeer},
		{"hostPort from the peer host", criPort},
		{"bandwidth, portMappings, dns, annotations", criCapabilities},
		{"stopp and rmp", criStop},
		{"DEL without libcni's cache", criCache},
		{"restart of containerd", criRestart},
	}
	kinds := []string{"ADD", "DEL", "DEL (prevResult)", "DEL (no netns)"}
	if r.cni == "1.0.0" {
		tests = append(tests, check[*criLab]{"cniVersion 1.1.0", criLatest})
	} else {
		tests = append(tests, check[*criLab]{"STATUS and NetworkReady", criStatus})
		kinds = append(kinds, "STATUS")
	}
	primePortmap(t, l.Lab)
	empty := look(t, l.Lab)
	l.web = l.two.pod(t, publish8080)
	checkAll(t, row, l.Lab, l, tests)
	l.web.remove(t)
	row.check(t, "nothing left", func(t *testing.T) { nothingLeft(t, l.Lab, empty) })
	row.saw(t, l.Lab)
	row.only(t, kinds...)
}

func criPeer(t *testing.T, l *criLab) {
	p := l.one.pod(t, nil)
	shell(p.exec).reaches(t, l.web.addrs(t)...)
	shell(l.web.exec).reaches(t, p.addrs(t)...)
	var status struct {
		Status struct {
			Network struct {
				IP            netip.Addr
				AdditionalIPs []struct{ IP netip.Addr } `json:"additionalIps"`
			}
		}
	}
	if err := json.Unmarshal([]byte(l.one.mustCtl(t, "inspectp", p.sandbox)), &status); err != nil {
		t.Fatal(err)
	}
	said := []netip.Addr{status.Status.Network.IP}
	for _, a := range status.Status.Network.AdditionalIPs {
		said = append(said, a.IP)
	}
	if have := p.addrs(t); !slices.Equal(said, have) {
		t.Errorf("CRI says that the pod has %s, it has %s", said, have)
	}
	p.remove(t)
}

func criPort(t *testing.T, l *criLab) {
	port := netip.AddrPortFrom(l.two.host.Addr4, 8080)
	onHost(l.one.host).fetches(t, port)
	p := l.one.pod(t, nil)
	shell(p.exec).fetches(t, port)
	p.remove(t)
}

// criCapabilities looks at what comes of a pod's ports and annotations.
func criCapabilities(t *testing.T, l *criLab) {
	was := len(calls(t, l.one.host))
	p := l.one.pod(t, cnitest.Conf{"annotations": cnitest.Conf{"kubernetes.io/ingress-bandwidth": "10M"}, "port_mappings": publish8080["port_mappings"]})
	for _, c := range calls(t, l.one.host)[was:] {
		if c.verb != "ADD" {
			continue
		}
		for _, key := range []string{"K8S_POD_NAME=", "K8S_POD_NAMESPACE=default", "K8S_POD_INFRA_CONTAINER_ID=" + c.id, "IgnoreUnknown=1"} {
			if !strings.Contains(c.args, key) {
				t.Errorf("want %s in CNI_ARGS %s", key, c.args)
			}
		}
	}
	onHost(l.two.host).fetches(t, netip.AddrPortFrom(l.one.host.Addr4, 8080))
	if out := l.one.host.Shell(t, "tc qdisc show"); !strings.Contains(out, "rate 10Mbit") {
		t.Errorf("no queue has the rate of the annotation:\n%s", out)
	}
	if out, err := p.exec("cat /etc/resolv.conf"); !strings.Contains(out, "192.0.2.53") {
		t.Errorf("resolv.conf: %s %v", out, err)
	}
	p.remove(t)
}

// criStop stops a pod, whose address is free then, and removes it.
func criStop(t *testing.T, l *criLab) {
	before := cnitest.MustLook(t, l.one.host)
	p := l.one.pod(t, publish8080)
	was := len(calls(t, l.one.host))
	p.mustCtl(t, "stopp", p.sandbox)
	if err := before.Settled(l.one.host); err != nil {
		t.Errorf("stopped: %v", err)
	}
	p.mustCtl(t, "rmp", p.sandbox)
	if since := kinds(calls(t, l.one.host)[was:]); !slices.Equal(since, []string{"DEL (prevResult)", "DEL (no netns)"}) {
		t.Errorf("stopp and rmp have called %q: tell docs/runtimes.md", since)
	}
}

// kinds are the kinds of calls, but for STATUS, which comes when it likes.
func kinds(list []call) []string {
	var kinds []string
	for _, c := range list {
		if c.verb != "STATUS" {
			kinds = append(kinds, c.kind())
		}
	}
	return kinds
}

// criCache removes libcni's memory of a pod: DEL comes without a result.
func criCache(t *testing.T, l *criLab) {
	p := l.one.pod(t, nil)
	was := len(calls(t, l.one.host))
	l.one.host.Shell(t, "rm /var/lib/cni/results/*")
	p.remove(t)
	if since := kinds(calls(t, l.one.host)[was:]); !slices.Equal(since, []string{"DEL", "DEL (no netns)"}) {
		t.Errorf("there were %q", since)
	}
}

// criRestart restarts containerd under a running pod.
func criRestart(t *testing.T, l *criLab) {
	p := l.one.pod(t, nil)
	addrs, was := p.addrs(t), len(calls(t, l.one.host))
	l.one.stop(t)
	shell(onHost(l.two.host)).reaches(t, addrs...)
	l.one.start(t)
	testnet.Eventually(t, patience, l.one.ready)
	shell(p.exec).reaches(t, l.web.addrs(t)...)
	if since := kinds(calls(t, l.one.host)[was:]); since != nil {
		t.Errorf("a restart of containerd calls %q", since)
	}
	p.remove(t)
}

// criLatest has a conflist of 1.1.0, which containerd 1.6 loads and cannot take.
func criLatest(t *testing.T, l *criLab) {
	refused(t, l.one.host, func() error {
		l.one.loads(t, "1.1.0")
		if err := l.one.ready(); err != nil {
			t.Errorf("%v: tell docs/runtimes.md", err)
		}
		_, err := l.one.runp(t, nil)
		return err
	})
	l.one.loads(t, "1.0.0")
}

// loads waits until containerd has read the conflist, in this version.
func (c *cri) loads(t *testing.T, version string) {
	t.Helper()
	testnet.Eventually(t, patience, func() error {
		out, err := c.ctl("info")
		if err == nil && !strings.Contains(out, `"CNIVersion": "`+version+`"`) {
			err = errors.New("containerd has not read the conflist yet")
		}
		return err
	})
}

// ready is what CRI's NetworkReady says: nil is true.
func (c *cri) ready() error {
	out, err := c.ctl("info")
	if err != nil {
		return err
	}
	var info struct {
		Status struct {
			Conditions []struct {
				Type, Reason, Message string
				Status                bool
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		return err
	}
	for _, cond := range info.Status.Conditions {
		if cond.Type == "NetworkReady" && cond.Status {
			return nil
		}
		if cond.Type == "NetworkReady" {
			return fmt.Errorf("%s: %s", cond.Reason, cond.Message)
		}
	}
	return errors.New("CRI says nothing of NetworkReady")
}

// criStatus ends OVS's daemons: STATUS makes the node say why it is not ready,
// and that it is again.
func criStatus(t *testing.T, l *criLab) {
	h := l.one.host
	for _, daemon := range []struct {
		says        string
		kill, start func(context.Context) error
	}{
		{"connect to OVSDB", h.KillOVSDB, h.StartOVSDB},
		{"ovs-vswitchd", h.KillVswitchd, h.StartVswitchd},
	} {
		if err := daemon.kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.one.ready(); err == nil || !strings.Contains(err.Error(), daemon.says) {
			t.Errorf("want the network not to be ready and %q: %v", daemon.says, err)
		}
		if err := daemon.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		testnet.Eventually(t, patience, l.one.ready)
	}
	p := l.one.pod(t, nil)
	shell(p.exec).reaches(t, l.web.addrs(t)...)
	p.remove(t)
}
