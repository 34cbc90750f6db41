// Package mesh tells which node of a network this host is, and who its peers are.
package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"ovs-gre-cni/pkg/spec"
)

// ErrNotReady is wrapped by errors that time may mend: the nodes file is not
// there yet. The runtime may try again.
var ErrNotReady = errors.New("not ready")

// A Mesh is a network's nodes as seen from this host.
type Mesh struct {
	// Self is this host's entry.
	Self spec.Node
	// Peers are all others, in the order of the list.
	Peers []spec.Node
	// Local: Self.Address is an address of this host, not one that a NAT stands for.
	Local bool
}

// Nodes returns Self and Peers in one list.
func (m Mesh) Nodes() []spec.Node { return append([]spec.Node{m.Self}, m.Peers...) }

// Nodes returns the list that the configuration names: nodes, or the content
// of its nodesFile. The error wraps ErrNotReady where the file is absent, and
// spec.ErrInvalid where it says nonsense.
func Nodes(b *spec.Base) ([]spec.Node, error) {
	if b.NodesFile == "" {
		return b.Nodes, nil
	}
	return Load(b.NodesFile)
}

// Resolve finds this host among nodes: the entry called node, or, if node is
// "", the one whose address is among local. The error wraps spec.ErrInvalid
// and names the addresses that this host has.
func Resolve(nodes []spec.Node, node string, local []netip.Addr) (Mesh, error) {
	var m Mesh
	here := make(map[netip.Addr]bool, len(local))
	for _, a := range local {
		here[a] = true
	}
	at := -1
	for i, n := range nodes {
		switch {
		case node != "" && n.Name != node:
		case node == "" && !here[n.Address]:
		case at >= 0:
			return m, fmt.Errorf("%w: nodes: %s and %s are both this host: name one of them with the key node", spec.ErrInvalid, nodes[at], n)
		default:
			at = i
		}
	}
	if at < 0 && node != "" {
		return m, fmt.Errorf("%w: node %q: no entry of nodes has this name", spec.ErrInvalid, node)
	}
	if at < 0 {
		return m, fmt.Errorf("%w: nodes: no entry for this host: none of its addresses (%s) is listed; add it, or name its entry with the key node", spec.ErrInvalid, addressList(local))
	}
	m.Self = nodes[at]
	m.Local = here[m.Self.Address]
	m.Peers = append(append(make([]spec.Node, 0, len(nodes)-1), nodes[:at]...), nodes[at+1:]...)
	return m, nil
}

// addressList prints the addresses that an operator would put into nodes.
func addressList(local []netip.Addr) string {
	var b []string
	for _, a := range local {
		if !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			b = append(b, a.String())
		}
	}
	switch {
	case len(b) == 0:
		return "it has none"
	case len(b) > 16:
		b = append(b[:16], fmt.Sprintf("and %d more", len(b)-16))
	}
	return strings.Join(b, ", ")
}
