// Package kube is the agent's source of hosts in a Kubernetes cluster: its
// Nodes. It reads them and nothing else, and keeps of them what it needs. Of an
// encrypted network it writes one annotation of this host's own Node.
package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"ovs-gre-cni/pkg/agent"
	"ovs-gre-cni/pkg/nodes"
)

// Annotation is the annotation of a Node that overrides its address on the underlay.
const Annotation = "ovs-gre/address"

// KeyAnnotation of a Node is its public key for WireGuard.
const KeyAnnotation = "ovs-gre/wireguard-key"

// A Source is the Nodes of a cluster. It implements agent.Source.
type Source struct {
	client   kubernetes.Interface
	informer cache.SharedIndexInformer
	// node is the name of this host's Node.
	node string
	log  *slog.Logger
}

// New returns the source of a cluster for the host of the Node with this name.
func New(client kubernetes.Interface, node string, log *slog.Logger) (*Source, error) {
	s := &Source{client: client, informer: informers.NewNodeInformer(client, 0, nil), node: node, log: log}
	if err := s.informer.SetTransform(trim); err != nil {
		return nil, err
	}
	return s, s.informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		level := slog.LevelWarn
		if errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			level = slog.LevelDebug // every watch ends after a while
		}
		s.log.Log(ctx, level, "Kubernetes API", "error", err)
	})
}

// Run implements agent.Source.
func (s *Source) Run(ctx context.Context, changed func()) error {
	handler, err := s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() },
		UpdateFunc: func(old, now any) {
			if !unchanged(old, now) {
				changed()
			}
		},
		DeleteFunc: func(any) { changed() },
	})
	if err != nil {
		return err
	}
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
			changed()
		}
	}()
	s.informer.RunWithContext(ctx)
	return ctx.Err()
}

// List implements agent.Source.
func (s *Source) List() (agent.List, error) {
	if !s.informer.HasSynced() {
		return agent.List{}, fmt.Errorf("%w: the API server has not told the Nodes yet", nodes.ErrNotReady)
	}
	var l agent.List
	var candidates []agent.Candidate
	for _, o := range s.informer.GetStore().List() {
		n, ok := o.(*corev1.Node)
		if !ok {
			continue
		}
		candidates = append(candidates, candidate(n))
		if n.Name == s.node {
			l.Runtime = n.Status.NodeInfo.ContainerRuntimeVersion
		}
	}
	l.Nodes, l.LeftOut = agent.Select(candidates)
	return l, nil
}

// Publish implements agent.Publisher: it writes KeyAnnotation of this host's Node.
func (s *Source) Publish(ctx context.Context, key string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{KeyAnnotation: key}}})
	if err != nil {
		return err
	}
	_, err = s.client.CoreV1().Nodes().Patch(ctx, s.node, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// trim keeps of a Node what candidate reads: a cluster has thousands, with
// lists of images in each.
func trim(o any) (any, error) {
	n, ok := o.(*corev1.Node)
	if !ok {
		return o, nil
	}
	kept := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion,
			CreationTimestamp: n.CreationTimestamp, DeletionTimestamp: n.DeletionTimestamp},
		Spec:   corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs},
		Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{ContainerRuntimeVersion: n.Status.NodeInfo.ContainerRuntimeVersion}},
	}
	for _, name := range []string{Annotation, KeyAnnotation} {
		if a, ok := n.Annotations[name]; ok {
			metav1.SetMetaDataAnnotation(&kept.ObjectMeta, name, a)
		}
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			kept.Status.Addresses = append(kept.Status.Addresses, a)
		}
	}
	return kept, nil
}

// unchanged reports whether an update says anything new: most are heartbeats.
func unchanged(old, now any) bool {
	a, ok1 := old.(*corev1.Node)
	b, ok2 := now.(*corev1.Node)
	if !ok1 || !ok2 {
		return false
	}
	return reflect.DeepEqual(candidate(a), candidate(b)) && a.Status.NodeInfo == b.Status.NodeInfo
}

// candidate returns the host of a Node.
func candidate(n *corev1.Node) agent.Candidate {
	c := agent.Candidate{Name: n.Name, Since: n.CreationTimestamp.Time, Leaving: n.DeletionTimestamp != nil,
		Key: strings.TrimSpace(n.Annotations[KeyAnnotation])}
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 && n.Spec.PodCIDR != "" {
		cidrs = []string{n.Spec.PodCIDR}
	}
	for _, text := range cidrs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			c.Problem = fmt.Sprintf("podCIDR %q is no subnet", text)
			continue
		}
		c.Subnets = append(c.Subnets, p.Masked())
	}
	if len(cidrs) == 0 {
		c.Problem = "it has no podCIDR yet"
	}
	if text, ok := n.Annotations[Annotation]; ok {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			c.Problem = fmt.Sprintf("annotation %s: %q is no address", Annotation, text)
			return c
		}
		c.Addresses = []netip.Addr{a.Unmap()}
		return c
	}
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			c.Addresses = append(c.Addresses, ip.Unmap())
		}
	}
	if len(c.Addresses) == 0 && c.Problem == "" {
		c.Problem = "it has no InternalIP yet"
	}
	return c
}
