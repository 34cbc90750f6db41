// Package agent keeps a network's host state and nodes file up to date. A pass asks a
// source for the list of hosts, writes the nodes file that the plugins read, makes the
// host state by the same code as ovs-grectl up, and then writes the conflist, by which
// the runtime finds the network. Every event leads to a pass, and every pass does
// all of this, so that no event needs to be seen.
//
// The agent attaches no containers, and the plugins need neither the agent nor its
// source. Package kube has the source for Kubernetes.
package agent
