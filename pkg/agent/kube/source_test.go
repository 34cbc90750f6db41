package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/testnet"
)

// node is a Node that came in a minute, with addresses and podCIDRs.
func node(name string, minute int, addrs, cidrs string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid", CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC)),
		Labels: map[string]string{"kubernetes.io/hostname": name}}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeExternalIP, Address: "203.0.113.1"}}
	for a := range strings.FieldsSeq(addrs) {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	n.Spec.PodCIDRs = strings.Fields(cidrs)
	if len(n.Spec.PodCIDRs) > 0 {
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
	n.Status.Images = []corev1.ContainerImage{{Names: []string{"image"}, SizeBytes: 1}}
	n.Status.NodeInfo.ContainerRuntimeVersion = "containerd://2.4.2"
	return n
}

// run starts a source over a fake API server.
func run(t *testing.T, nodes ...runtime.Object) (*fake.Clientset, *Source, chan struct{}) {
	t.Helper()
	client := fake.NewClientset(nodes...)
	s, err := New(client, "n1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	words, ended := make(chan struct{}, 1000), make(chan error, 1)
	go func() { ended <- s.Run(ctx, func() { words <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	return client, s, words
}

// knows waits until the source knows just that: a line a node, those left out
// with a colon.
func knows(t *testing.T, s *Source, want ...string) {
	t.Helper()
	lists(t, s, func(n config.Node) string { return fmt.Sprintf("%s %s %v", n.Name, n.Address, n.Subnets) }, want)
}

// lists waits until the source lists nodes with these texts, and then those left
// out.
func lists(t *testing.T, s *Source, text func(config.Node) string, want []string) {
	t.Helper()
	testnet.Eventually(t, 30*time.Second, func() error {
		l, err := s.List()
		if err != nil {
			return err
		}
		var have []string
		for _, n := range l.Nodes {
			have = append(have, text(n))
		}
		for _, name := range slices.Sorted(maps.Keys(l.LeftOut)) {
			have = append(have, name+": "+l.LeftOut[name])
		}
		if !slices.Equal(have, want) {
			return fmt.Errorf("it knows\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

// TestSource follows a cluster: Nodes come, change and go.
func TestSource(t *testing.T) {
	client, s, words := run(t, node("n1", 1, "10.0.0.1", "10.88.1.0/24"), node("n2", 2, "10.0.0.2", ""))
	nodes, ctx := client.CoreV1().Nodes(), context.Background()
	const n1 = "n1 10.0.0.1 [10.88.1.0/24]"
	knows(t, s, n1, "n2: it has no podCIDR yet")
	if l, err := s.List(); err != nil || l.Runtime != "containerd://2.4.2" {
		t.Errorf("runtime %q, %v", l.Runtime, err)
	}
	update := func(n *corev1.Node) {
		t.Helper()
		if _, err := nodes.Update(ctx, n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create := func(n *corev1.Node) {
		t.Helper()
		if _, err := nodes.Create(ctx, n, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string) {
		t.Helper()
		if err := nodes.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}

	update(node("n2", 2, "10.0.0.2", "10.88.2.0/24"))
	knows(t, s, n1, "n2 10.0.0.2 [10.88.2.0/24]")

	annotated := node("n2", 2, "10.0.0.2", "10.88.2.0/24")
	annotated.Annotations = map[string]string{Annotation: "192.0.2.2", "other": "x"}
	update(annotated)
	knows(t, s, n1, "n2 192.0.2.2 [10.88.2.0/24]")
	annotated.Annotations[Annotation] = "nowhere"
	update(annotated)
	knows(t, s, n1, `n2: annotation ovs-gre/address: "nowhere" is no address`)
	update(node("n2", 2, "", "10.88.2.0/24"))
	knows(t, s, n1, "n2: it has no InternalIP yet")

	// Both families; the second has one address alone, the third its subnet.
	update(node("n2", 2, "fd00::2 10.0.0.2", "10.88.2.0/24 fd88:2::/64"))
	create(node("n3", 3, "10.0.0.3", "10.88.2.128/25"))
	const n2 = "n2 10.0.0.2 [10.88.2.0/24 fd88:2::/64]"
	knows(t, s, n1, n2, "n3: its container subnet 10.88.2.128/25 overlaps 10.88.2.0/24 of n2")

	// The subnet goes to whom it belongs to now, at once.
	remove("n2")
	knows(t, s, n1, "n3 10.0.0.3 [10.88.2.128/25]")
	remove("n3")
	create(node("n4", 4, "10.0.0.4", "10.88.2.0/24"))
	knows(t, s, n1, "n4 10.0.0.4 [10.88.2.0/24]")

	// There has been a word for each of 11 events and one that all is known, some
	// of them after what they are about; none is for what says nothing new.
	const seen = 12
	testnet.Eventually(t, 30*time.Second, func() error {
		if n := len(words); n != seen {
			return fmt.Errorf("%d words, want %d", n, seen)
		}
		return nil
	})
	beat := node("n4", 4, "10.0.0.4", "10.88.2.0/24")
	beat.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}}
	beat.Labels["a"] = "b"
	update(beat)
	create(node("n5", 5, "10.0.0.5", "10.88.5.0/24"))
	knows(t, s, n1, "n4 10.0.0.4 [10.88.2.0/24]", "n5 10.0.0.5 [10.88.5.0/24]")
	testnet.Eventually(t, 30*time.Second, func() error {
		if n := len(words) - seen; n != 1 {
			return fmt.Errorf("%d words about a heartbeat and a node that came", n)
		}
		return nil
	})
	for _, o := range s.informer.GetStore().List() {
		if n, ok := o.(*corev1.Node); !ok || n.Labels != nil || n.Status.Images != nil || len(n.Status.Addresses) != 1 {
			t.Errorf("it keeps %v", o)
		}
	}
}

// TestUnreachable: until the API server has told the Nodes, nothing is known;
// that it fails is no end.
func TestUnreachable(t *testing.T) {
	client := fake.NewClientset(node("n1", 1, "10.0.0.1", "10.88.1.0/24"))
	var down = make(chan struct{})
	client.PrependReactor("list", "nodes", func(k8stesting.Action) (bool, runtime.Object, error) {
		select {
		case <-down:
			return false, nil, nil
		default:
			return true, nil, errors.New("connection refused")
		}
	})
	s, err := New(client, "n1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	words := make(chan struct{}, 1000)
	go func() { _ = s.Run(ctx, func() { words <- struct{}{} }) }()
	testnet.Eventually(t, 30*time.Second, func() error {
		if len(client.Actions()) == 0 {
			return errors.New("it has not asked")
		}
		return nil
	})
	if _, err := s.List(); !errors.Is(err, nodes.ErrNotReady) {
		t.Errorf("it knows without having been told: %v", err)
	}
	close(down)
	knows(t, s, "n1 10.0.0.1 [10.88.1.0/24]")
	select {
	case <-words:
	case <-time.After(30 * time.Second):
		t.Error("no word when the Nodes were known")
	}
}

// TestKeys: a host's key is an annotation of its own Node, which all read.
func TestKeys(t *testing.T) {
	const key, other = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
	second := node("n2", 2, "10.0.0.2", "10.88.2.0/24")
	second.Annotations = map[string]string{KeyAnnotation: other}
	client, s, _ := run(t, node("n1", 1, "10.0.0.1", "10.88.1.0/24"), second)
	keys := func(want ...string) {
		t.Helper()
		lists(t, s, func(n config.Node) string { return n.Key }, want)
	}
	keys("", other)
	if err := s.Publish(context.Background(), key); err != nil {
		t.Fatal(err)
	}
	keys(key, other)
	n1, err := client.CoreV1().Nodes().Get(context.Background(), "n1", metav1.GetOptions{})
	if err != nil || len(n1.Annotations) != 1 || len(n1.Spec.PodCIDRs) != 1 {
		t.Errorf("the Node is %v, %v", n1, err)
	}

	// Nobody takes another's, and what is no key is said.
	if err := s.Publish(context.Background(), other); err != nil {
		t.Fatal(err)
	}
	knows(t, s, "n1 10.0.0.1 [10.88.1.0/24]", "n2: its key "+other+" belongs to n1 already: each host makes its own")
	if err := s.Publish(context.Background(), "x"); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 30*time.Second, func() error {
		if l, err := s.List(); err != nil || !strings.Contains(l.LeftOut["n1"], `key "x": want a public key of WireGuard's`) {
			return fmt.Errorf("%v, %v", l.LeftOut, err)
		}
		return nil
	})
}
