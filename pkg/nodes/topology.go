// Package nodes tells which node of a network this host is, and who its peers are.
package nodes

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"ovs-gre-cni/pkg/config"
)

// ErrNotReady is wrapped by errors that time may mend: the nodes file is not
// there yet. The runtime may try again.
var ErrNotReady = errors.New("not ready")

// A Topology is a network's nodes as seen from this host.
type Topology struct {
	// Self is this host's entry.
	Self config.Node
	// Peers are all others, in the order of the list.
	Peers []config.Node
	// Local: Self.Address is an address of this host, not one that a NAT stands for.
	Local bool
}

// All returns Self and Peers in one list.
func (m Topology) All() []config.Node { return append([]config.Node{m.Self}, m.Peers...) }

// Configured returns the list that the configuration names: nodes, or the content
// of its nodesFile. The error wraps ErrNotReady where the file is absent, and
// config.ErrInvalid where it says nonsense.
func Configured(b *config.Base) ([]config.Node, error) {
	if b.NodesFile == "" {
		return b.Nodes, nil
	}
	return Load(b.NodesFile)
}

// Resolve finds this host among nodes: the entry called node, or, if node is
// "", the one whose address is among local. The error wraps config.ErrInvalid
// and names the addresses that this host has.
func Resolve(nodes []config.Node, node string, local []netip.Addr) (Topology, error) {
	var m Topology
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
			return m, fmt.Errorf("%w: nodes: %s and %s are both this host: name one of them with the key node", config.ErrInvalid, nodes[at], n)
		default:
			at = i
		}
	}
	if at < 0 && node != "" {
		return m, fmt.Errorf("%w: node %q: no entry of nodes has this name", config.ErrInvalid, node)
	}
	if at < 0 {
		return m, fmt.Errorf("%w: nodes: no entry for this host: none of its addresses (%s) is listed; add it, or name its entry with the key node", config.ErrInvalid, addressList(local))
	}
	m.Self = nodes[at]
	m.Local = here[m.Self.Address]
	m.Peers = append(append(make([]config.Node, 0, len(nodes)-1), nodes[:at]...), nodes[at+1:]...)
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
