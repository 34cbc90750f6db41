// Package k8s installs the manifests of deploy/kubernetes on a real cluster and
// looks at what comes of it.
//
// The cluster runs on hosts of pkg/testnet: a control plane (etcd,
// kube-apiserver, kube-controller-manager, kube-scheduler) where the lab has
// the world outside, and nodes with containerd, kubelet and kube-proxy, each
// with an Open vSwitch of its own. The programs come from test/upstream;
// OVSGRE_UPSTREAM is its directory.
package k8s
