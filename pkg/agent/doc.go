// Package agent keeps a network's list of hosts, and this host as it should be:
// it asks a source who the hosts are, stores them where the plugins read them,
// brings the host state about by the same code as everybody else, and writes the
// conflist once a container could be attached. Whatever happens leads to a pass,
// and every pass does all of it: nothing depends on having seen an event.
//
// It attaches no containers: the plugins need neither the agent nor its source.
// This package knows no Kubernetes; package kube is its source of that kind.
package agent
