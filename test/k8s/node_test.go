package k8s

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
)

const criSocket = "unix:///run/containerd/containerd.sock"

// A node is a host with containerd, kubelet and kube-proxy.
type node struct {
	*testnet.Host
	c      *cluster
	dir    string // of this machine, with logs and data
	cgroup string // below each cgroup hierarchy

	containerd, kubelet, proxy *daemon
}

// prepare shows kubelet the sysctls that it wants, which are the whole
// machine's, so that it does not change them.
const prepare = `
dir=$1
mkdir -p "$dir"/sysctl "$dir"/manifests "$dir"/logs
while read -r name value; do
	echo "$value" >"$dir/sysctl/$(basename "$name")"
	mount --bind "$dir/sysctl/$(basename "$name")" "/proc/sys/$name"
done <<.
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
.
`

// join makes a host a node of the cluster: it registers itself, and is not
// ready before it has a network.
func (c *cluster) join(t testing.TB, h *testnet.Host) *node {
	t.Helper()
	n := &node{Host: h, c: c, dir: filepath.Join(h.Dir, "node"), cgroup: fmt.Sprintf("k8s-test-%d-%s", os.Getpid(), h.Name)}
	h.Run(t, "sh", "-ec", prepare, "prepare", n.dir)
	t.Cleanup(n.sweep)
	n.startContainerd(t)
	for _, tar := range c.images {
		h.Run(t, c.bin("ctr"), "-n", "k8s.io", "images", "import", tar)
	}
	t.Cleanup(func() { n.removePods(t) })
	n.startKubelet(t)
	n.proxy = start(t, h, n.dir, "", c.bin("kube-proxy"), "--kubeconfig="+c.config("kube-proxy"), "--hostname-override="+h.Name,
		"--proxy-mode="+c.proxy, "--cluster-cidr="+podRanges, "--conntrack-max-per-core=0", "--conntrack-min=0")
	c.nodes = append(c.nodes, n)
	return n
}

// startContainerd starts a containerd at its usual paths, for /run is the
// host's own, with its data in the host's directory. A machine without
// CAP_SYS_RESOURCE cannot lower a sandbox's OOM score.
func (n *node) startContainerd(t testing.TB) {
	t.Helper()
	conf := filepath.Join(n.dir, "containerd.toml")
	n.WriteFile(t, conf, fmt.Sprintf(`version = 3
root = "%[1]s/containerd"
state = "/run/containerd"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "%[2]s"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.nri.v1.nri"]
  disable = %[3]t
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
`, n.dir, pauseImage, !n.c.whole))
	args := []string{n.c.bin("containerd"), "-c", conf}
	if n.c.whole {
		// Pods with hostNetwork have the name of their node.
		args = append([]string{"unshare", "--uts", "sh", "-c", `hostname "$0"; exec "$@"`, n.Name}, args...)
	}
	// It looks for its shim in PATH.
	n.containerd = start(t, n.Host, n.dir, filepath.Dir(n.c.bin("containerd")), args...)
	n.containerd.ready(t, func() error {
		_, err := n.Output(context.Background(), n.c.bin("ctr"), "version")
		return err
	})
}

// startKubelet starts a kubelet. Cgroups are the whole machine's: it keeps to
// one of the node's name.
func (n *node) startKubelet(t testing.TB) {
	t.Helper()
	conf := filepath.Join(n.dir, "kubelet.yaml")
	n.WriteFile(t, conf, fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: %s
cgroupDriver: cgroupfs
cgroupRoot: /%s
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
staticPodPath: %[3]s/manifests
podLogsDir: %[3]s/logs
volumePluginDir: %[3]s/plugins
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 1Mi}
syncFrequency: 10s
fileCheckFrequency: 1s
nodeStatusUpdateFrequency: 4s
%[4]s`, criSocket, n.cgroup, n.dir, n.dnsConf()))
	n.kubelet = start(t, n.Host, n.dir, "", n.c.bin("kubelet"), "--config="+conf, "--root-dir="+filepath.Join(n.dir, "kubelet"),
		"--kubeconfig="+n.c.config(n.Name), "--hostname-override="+n.Name, "--node-ip="+n.Addr4.String()+","+n.Addr6.String())
}

// dnsConf is what kubelet is told of the cluster's DNS.
func (n *node) dnsConf() string {
	if !n.c.whole {
		return ""
	}
	return fmt.Sprintf("clusterDNS: [%s]\nclusterDomain: cluster.local\n", dnsService)
}

// crictl calls the node's runtime as kubelet does.
func (n *node) crictl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := n.Output(ctx, n.c.bin("crictl"), append([]string{"--runtime-endpoint", criSocket, "--timeout", "60s"}, args...)...)
	return strings.TrimSpace(out), err
}

// removePods ends what kubelet has started; kubelet must not start it again. A
// container that dies with its host would leave its cgroup behind.
func (n *node) removePods(t testing.TB) {
	if n.containerd.over() || n.PID() == 0 {
		return
	}
	// Without a network it says that there is none, when all is done.
	if out, err := n.crictl("rmp", "--all", "--force"); err != nil && t.Failed() {
		t.Logf("%s: remove pods: %v\n%s", n.Name, err, out)
	}
}

// sweep removes the node's cgroups.
func (n *node) sweep() {
	dirs, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", "*", n.cgroup))
	for _, top := range append(dirs, filepath.Join("/sys/fs/cgroup", n.cgroup)) {
		var below []string
		_ = filepath.WalkDir(top, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				below = append(below, path)
			}
			return nil
		})
		for i := len(below) - 1; i >= 0; i-- {
			_ = os.Remove(below[i])
		}
	}
}
