package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// manyNodes is the number of Nodes unless NODES says another.
const manyNodes = 5000

// TestManyNodes runs agents of three hosts beside an API server with thousands of
// Nodes, without kubelets and controllers, and prints what they cost an agent.
func TestManyNodes(t *testing.T) {
	total := manyNodes
	if text := os.Getenv("NODES"); text != "" {
		var err error
		if total, err = strconv.Atoi(text); err != nil || total < 10 {
			t.Fatalf("NODES is %q: want a number of at least 10", text)
		}
	}
	lab := testnet.New(t, testnet.Options{Hosts: 3, PluginDir: cnitest.BinDir(t)})
	m := &crowdedCluster{cluster: newCluster(t, lab, options{bare: true}), total: total}
	m.client = m.connect(t)
	for i, h := range lab.Hosts {
		n := manyNode(i)
		n.Name = h.Name
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: h.Addr4.String()}, {Type: corev1.NodeInternalIP, Address: h.Addr6.String()}}
		m.put(t, n)
	}
	for _, step := range []struct {
		name string
		f    func(*testing.T) string
	}{
		{"nodes come", m.testCome}, {"new host", m.testNewHost}, {"new agent", m.testNewAgent}, {"one node changes", m.testChange},
		{"one node comes and goes", m.testComeAndGo}, {"kubelets report", m.testReports}, {"nothing happens", m.testIdle}, {"nodes go", m.testGo},
	} {
		if !m.step(t, step.name, step.f) {
			return
		}
	}
}

// A crowdedCluster is an API server with many Nodes, and agents of few hosts.
type crowdedCluster struct {
	*cluster
	total  int
	client kubernetes.Interface
	agents []*agentProcess
}

// connect returns a client for the API server, in whose namespace its connections are.
func (m *crowdedCluster) connect(t *testing.T) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", m.config("admin"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.ContentType = -1, "application/vnd.kubernetes.protobuf"
	config.Dial = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		at := fmt.Sprintf("/proc/%d/ns/net", m.lab.Underlay.PID())
		errNS := ns.WithNetNSPath(at, func(ns.NetNS) error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, errors.Join(errNS)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// manyNode is the Node with a number, as large as kubelets make them.
func manyNode(i int) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("many%d", i), Labels: map[string]string{"many": "true"}}}
	for _, name := range []string{"kubernetes.io/arch", "kubernetes.io/os", "kubernetes.io/hostname", "topology.kubernetes.io/zone",
		"topology.kubernetes.io/region", "node.kubernetes.io/instance-type"} {
		n.Labels[name] = fmt.Sprintf("value-of-%d", i)
	}
	n.Spec.PodCIDRs = []string{fmt.Sprintf("10.%d.%d.0/24", 128+i>>8, i&255), fmt.Sprintf("fd00:10:0:%x::/64", i)}
	n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: n.Name},
		{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("172.20.%d.%d", i>>8, i&255)}}
	n.Status.NodeInfo = corev1.NodeSystemInfo{KernelVersion: "6.1.0-37-amd64", OSImage: "Debian GNU/Linux 12 (bookworm)", Architecture: "amd64",
		OperatingSystem: "linux", KubeletVersion: "v1.36.3", ContainerRuntimeVersion: "containerd://2.4.2"}
	for _, kind := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, LastHeartbeatTime: metav1.Now(),
			LastTransitionTime: metav1.Now(), Reason: "KubeletSaysSo", Message: "kubelet has something to say about this condition"})
	}
	n.Status.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("110")}
	n.Status.Allocatable = n.Status.Capacity
	for j := range 50 { // kubelet's nodeStatusMaxImages
		name := fmt.Sprintf("registry.example.com/team/application-%d", j)
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{SizeBytes: 123456789, Names: []string{name + "@sha256:" + strings.Repeat("0123456789abcdef", 4), name + ":v1.2.3"}})
	}
	return n
}

// put creates a Node.
func (m *crowdedCluster) put(t *testing.T, n *corev1.Node) {
	t.Helper()
	if _, err := m.client.CoreV1().Nodes().Create(context.Background(), n, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// patch applies a merge patch to a Node, or to its status.
func (m *crowdedCluster) patch(t *testing.T, name string, what any, subresources ...string) {
	t.Helper()
	raw, err := json.Marshal(what)
	if err == nil {
		_, err = m.client.CoreV1().Nodes().Patch(context.Background(), name, types.MergePatchType, raw, metav1.PatchOptions{}, subresources...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// An agentProcess is an agent that no kubelet has started.
type agentProcess struct {
	*daemon
	*node
}

// run starts the agent of a host.
func (m *crowdedCluster) run(t *testing.T, h *testnet.Host) *agentProcess {
	t.Helper()
	dir := filepath.Join(h.Dir, "agent")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	main := manifest{"type": "ovs-gre", "segment": "container", "ipMasq": true, "tunnel": manifest{"ports": "one"}, "ipam": manifest{"type": "host-local"}}
	if m.lab.Datapath == testnet.DatapathNetdev {
		main["datapathType"] = "netdev"
	}
	raw, err := json.Marshal(manifest{"cniVersion": "1.1.0", "name": "pods", "plugins": []manifest{main, {"type": "route-sync"}}})
	if err != nil {
		t.Fatal(err)
	}
	h.WriteFile(t, "/etc/cni/template.json", string(raw))
	a := &agentProcess{node: &node{Host: h, c: m.cluster, dir: dir}}
	// The test's end is not that of a step.
	a.daemon = start(m.t, h, dir, "", "/opt/cni/bin/ovs-gre-agent", "run", "--node", h.Name, "--template", "/etc/cni/template.json",
		"--kubeconfig", m.config("admin"))
	m.agents = append(m.agents, a)
	return a
}

// stand waits until the agents have so many peers: a flow lets each in, two lead to
// its pod subnets, and two are there without peers.
func (m *crowdedCluster) stand(t *testing.T, peers int) {
	t.Helper()
	for _, a := range m.agents {
		testnet.Eventually(t, patience, func() error {
			out, err := a.Output(context.Background(), "ovs-ofctl", "dump-aggregate", "obr0-t")
			_, count, _ := strings.Cut(out, "flow_count=")
			if n, _ := strconv.Atoi(strings.TrimSpace(count)); err == nil && n != 3*peers+2 {
				err = fmt.Errorf("%s has %d flows, want three for each of %d peers, and two", a.Name, n, peers)
			}
			return err
		})
	}
}

// A cost is what something took an agent.
type cost struct {
	usage
	passes, seconds float64
	received        float64 // MB from the API server
}

// spent returns what an agent has used so far; memory is what it has now. To be asked
// costs an agent something, too.
func (a *agentProcess) spent(t *testing.T) cost {
	t.Helper()
	c := cost{usage: usage{memory: a.status(t, "VmRSS:"), cpu: a.cpu(t)}}
	c.passes, c.seconds = a.passes(t)
	c.received = a.received(t)
	return c
}

// received is how many MB the agent's connections to the API server have received.
func (a *agentProcess) received(t *testing.T) (sum float64) {
	t.Helper()
	for word := range strings.FieldsSeq(a.Run(t, "ss", "-tinH", "dst", a.c.lab.Underlay.Addr4.String()+":6443")) {
		if text, ok := strings.CutPrefix(word, "bytes_received:"); ok {
			n, _ := strconv.ParseFloat(text, 64)
			sum += n / 1e6
		}
	}
	return sum
}

// passes returns how many passes an agent has made, and how many seconds they took.
func (a *agentProcess) passes(t *testing.T) (count, sum float64) {
	t.Helper()
	const name = "ovs_gre_agent_reconcile_duration_seconds_"
	for line := range strings.Lines(a.Run(t, "busybox", "wget", "-qO-", "http://127.0.0.1:9178/metrics")) {
		_, _ = fmt.Sscanf(line, name+"count %f", &count)
		_, _ = fmt.Sscanf(line, name+"sum %f", &sum)
	}
	return count, sum
}

// status is a number of kB in the agent's /proc/PID/status, in MB.
func (a *agentProcess) status(t *testing.T, name string) float64 {
	t.Helper()
	var kB float64
	for line := range strings.Lines(a.Run(t, "cat", fmt.Sprintf("/proc/%d/status", a.agentPID()))) {
		_, _ = fmt.Sscanf(line, name+" %f kB", &kB)
	}
	return kB * 1024 / 1e6
}

// cpu is the CPU time that the agent has had, in seconds.
func (a *agentProcess) cpu(t *testing.T) float64 {
	t.Helper()
	_, text, _ := strings.Cut(a.Run(t, "cat", fmt.Sprintf("/proc/%d/stat", a.agentPID())), ") ")
	fields := strings.Fields(text)
	if len(fields) < 13 {
		t.Fatalf("%s: no agent", a.Name)
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

// since is a text of what has been used since then.
func (c cost) since(was cost) string {
	passes := c.passes - was.passes
	text := fmt.Sprintf("agent %.0f MB, %.2f s of CPU, %.2f MB from the API server, %.0f passes", c.memory, c.cpu-was.cpu, c.received-was.received, passes)
	if passes > 0 {
		text += fmt.Sprintf(" of %.2f s", (c.seconds-was.seconds)/passes)
	}
	return text
}

// testCome starts two agents and then lets all Nodes come, as fast as they do.
func (m *crowdedCluster) testCome(t *testing.T) string {
	for _, h := range m.lab.Hosts[:2] {
		m.run(t, h)
	}
	m.stand(t, 2)
	was, begin := m.agents[0].spent(t), time.Now()
	numbers := make(chan int)
	var all sync.WaitGroup
	errs := make(chan error, m.total)
	for range 8 {
		all.Go(func() {
			for i := range numbers {
				_, err := m.client.CoreV1().Nodes().Create(context.Background(), manyNode(i), metav1.CreateOptions{})
				errs <- err
			}
		})
	}
	for i := 3; i < m.total; i++ {
		numbers <- i
	}
	close(numbers)
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	created := time.Since(begin)
	m.stand(t, m.total-1)
	stood := time.Since(begin)
	m.idle(t)
	return fmt.Sprintf("%d created in %.1f s, all stands %.1f s later; %s, at most %.0f MB", m.total-3, created.Seconds(), (stood - created).Seconds(),
		m.agents[0].spent(t).since(was), m.agents[0].status(t, "VmHWM:"))
}

// testNewHost starts the agent of a host that has nothing yet.
func (m *crowdedCluster) testNewHost(t *testing.T) string {
	requests, begin := m.requests(t), time.Now()
	a := m.run(t, m.lab.Hosts[2])
	a.ready(t)
	ready := time.Since(begin)
	m.stand(t, m.total-1)
	m.idle(t)
	return fmt.Sprintf("ready after %.1f s; %s, at most %.0f MB; requests: %s", ready.Seconds(), a.spent(t).since(cost{}), a.status(t, "VmHWM:"), m.requests(t).since(requests))
}

// ready waits until the agent is.
func (a *agentProcess) ready(t *testing.T) {
	t.Helper()
	a.daemon.ready(t, func() error {
		_, err := a.Output(context.Background(), "busybox", "wget", "-qO-", "http://127.0.0.1:9178/readyz")
		return err
	})
}

// testNewAgent starts an agent anew where all stands.
func (m *crowdedCluster) testNewAgent(t *testing.T) string {
	a := m.agents[0]
	a.stop(t)
	requests, begin := m.requests(t), time.Now()
	a.start(t)
	a.ready(t)
	ready := time.Since(begin)
	m.idle(t)
	return fmt.Sprintf("ready after %.1f s; %s, at most %.0f MB; requests: %s", ready.Seconds(), a.spent(t).since(cost{}), a.status(t, "VmHWM:"), m.requests(t).since(requests))
}

// idle waits until no agent has anything to do, nor anything more to hear.
func (m *crowdedCluster) idle(t *testing.T) {
	t.Helper()
	was, since := 0.0, time.Now()
	rest := time.NewTicker(time.Second) // to be asked keeps them busy
	defer rest.Stop()
	testnet.Eventually(t, patience, func() error {
		<-rest.C
		now := 0.0
		for _, a := range m.agents {
			passes, _ := a.passes(t)
			now += passes + a.received(t)
		}
		if now != was {
			was, since = now, time.Now()
		}
		if time.Since(since) < 3*time.Second {
			return fmt.Errorf("agents go on: %.3f", now)
		}
		return nil
	})
}

// admit waits until the agents let packets in from an address, or do not any more.
func (m *crowdedCluster) admit(t *testing.T, addr string, want bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for _, a := range m.agents {
		testnet.Eventually(t, patience, func() error {
			out, err := a.Output(context.Background(), "ovs-ofctl", "--no-names", "dump-flows", "obr0-t", "tun_src="+addr)
			if err == nil && strings.Contains(out, "tun_src="+addr) != want {
				err = fmt.Errorf("%s: packets from %s let in is not %v: %s", a.Name, addr, want, out)
			}
			return err
		})
	}
	return time.Since(begin)
}

// testChange gives one Node another address.
func (m *crowdedCluster) testChange(t *testing.T) string {
	var took []time.Duration
	was := m.agents[0].spent(t)
	for i := range changes {
		m.idle(t)
		addr := fmt.Sprintf("172.21.0.%d", i+1)
		m.patch(t, "many7", manifest{"metadata": manifest{"annotations": manifest{"ovs-gre/address": addr}}})
		took = append(took, m.admit(t, addr, true))
	}
	m.idle(t)
	return fmt.Sprintf("applied on all hosts after %s; %d times: %s", seconds(took), changes, m.agents[0].spent(t).since(was))
}

// testComeAndGo lets a Node come and go.
func (m *crowdedCluster) testComeAndGo(t *testing.T) string {
	n, addr := manyNode(m.total), fmt.Sprintf("172.20.%d.%d", m.total>>8, m.total&255)
	was := m.agents[0].spent(t)
	m.put(t, n)
	come := m.admit(t, addr, true)
	m.idle(t)
	if err := m.client.CoreV1().Nodes().Delete(context.Background(), n.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone := m.admit(t, addr, false)
	m.idle(t)
	return fmt.Sprintf("there after %.2f s, gone after %.2f s; %s", come.Seconds(), gone.Seconds(), m.agents[0].spent(t).since(was))
}

// testReports has Nodes change as kubelets have them do it: each tells its status every
// five minutes. None of it is new to an agent.
func (m *crowdedCluster) testReports(t *testing.T) string {
	const lasting = 30 * time.Second
	was, requests, begin := m.agents[0].spent(t), m.requests(t), time.Now()
	every := time.NewTicker(5 * time.Minute / time.Duration(m.total))
	defer every.Stop()
	i := 0
	for ; time.Since(begin) < lasting; i++ {
		<-every.C
		n := manyNode(3 + i%(m.total-3))
		n.Status.Conditions[0].Reason = fmt.Sprintf("Report%d", i)
		m.patch(t, n.Name, manifest{"status": manifest{"conditions": n.Status.Conditions}}, "status")
	}
	return fmt.Sprintf("%d reports in %.0f s: %s; requests: %s", i, time.Since(begin).Seconds(), m.agents[0].spent(t).since(was), m.requests(t).since(requests))
}

// testIdle looks at what passes cost that nothing but the time has caused, and then
// at what it costs to ask an agent for its metrics and for its page.
func (m *crowdedCluster) testIdle(t *testing.T) string {
	m.idle(t)
	const lasting, asked = 60 * time.Second, 20
	a := m.agents[0]
	was := a.spent(t)
	<-time.After(lasting) // this is no wait for something
	idle := a.spent(t)
	for range asked {
		a.passes(t)
	}
	metrics := a.cpu(t)
	page := a.Run(t, "busybox", "wget", "-qO-", "http://127.0.0.1:9179/")
	if want := fmt.Sprintf("%d hosts", m.total); !strings.Contains(page, want) {
		t.Errorf("the page does not say %q", want)
	}
	return fmt.Sprintf("%.0f s: %s; to ask for metrics takes %.0f ms of CPU, for the page of %.1f MB %.0f ms, and then it has %.0f MB", lasting.Seconds(),
		idle.since(was), (metrics-idle.cpu)/asked*1000, float64(len(page))/1e6, (a.cpu(t)-metrics)*1000, a.status(t, "VmRSS:"))
}

// testGo deletes all Nodes that have no host, at once.
func (m *crowdedCluster) testGo(t *testing.T) string {
	was, begin := m.agents[0].spent(t), time.Now()
	hosts := []string{}
	for _, h := range m.lab.Hosts {
		hosts = append(hosts, "metadata.name!="+h.Name)
	}
	these := metav1.ListOptions{LabelSelector: "many=true", FieldSelector: strings.Join(hosts, ",")}
	testnet.Eventually(t, patience, func() error { // the API server breaks off what takes it a minute
		return m.client.CoreV1().Nodes().DeleteCollection(context.Background(), metav1.DeleteOptions{}, these)
	})
	m.stand(t, 2)
	return fmt.Sprintf("nothing of them is left after %.1f s; %s", time.Since(begin).Seconds(), m.agents[0].spent(t).since(was))
}

// seconds are durations for people.
func seconds(list []time.Duration) string {
	var words []string
	for _, d := range list {
		words = append(words, fmt.Sprintf("%.2f", d.Seconds()))
	}
	return strings.Join(words, ", ") + " s"
}

// requests counts requests for Nodes that the API server has had, by verb.
type requests map[string]int

func (m *crowdedCluster) requests(t *testing.T) requests {
	t.Helper()
	r := requests{}
	for line := range strings.Lines(m.kubectl(t, "get", "--raw", "/metrics")) {
		labels, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		// A watch is counted when it has ended; of those that go on there is a gauge.
		counter := strings.HasPrefix(labels, "apiserver_request_total{") || strings.HasPrefix(labels, "apiserver_longrunning_requests{")
		if !ok || !counter || !strings.Contains(labels, `resource="nodes"`) {
			continue
		}
		_, verb, _ := strings.Cut(labels, `verb="`)
		verb, _, _ = strings.Cut(verb, `"`)
		n, _ := strconv.ParseFloat(value, 64)
		r[verb] += int(n)
	}
	return r
}

// since is a text of the requests since then that agents have made.
func (r requests) since(was requests) string {
	var words []string
	for _, verb := range []string{"LIST", "WATCH", "GET"} {
		words = append(words, fmt.Sprintf("%d %s", r[verb]-was[verb], verb))
	}
	return strings.Join(words, ", ")
}
