// Package nodes finds this host among a network's nodes, and reads and writes the
// file that lists them.
package nodes

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
)

// ErrNotReady is wrapped by errors about a nodes file that does not exist yet. The
// runtime may try again.
var ErrNotReady = errors.New("not ready")

// A Topology is a network's nodes as seen from this host.
type Topology struct {
	// Self is this host's entry.
	Self config.Node
	// Peers are the other entries, in the order of the list.
	Peers []config.Node
	// Fan stands for the peers where no list has them; Peers is empty then.
	Fan config.Fan
	// Local: Self.Address is an address of this host. It is false behind NAT.
	Local bool
}

// All returns Self and Peers in one list.
func (t Topology) All() []config.Node { return append([]config.Node{t.Self}, t.Peers...) }

// HasPeers reports whether there may be other hosts.
func (t Topology) HasPeers() bool { return len(t.Peers) > 0 || !t.Fan.IsZero() }

// Holders are the peers or, where no list has them, one without an address that stands
// for all: its subnet holds theirs, and this host's own.
func (t Topology) Holders() []config.Node {
	if t.Fan.IsZero() {
		return t.Peers
	}
	return []config.Node{{Name: "the hosts in " + t.Fan.Underlay.String(), Subnets: []netip.Prefix{t.Fan.Containers}}}
}

// PeerSubnets are the container subnets of Holders.
func (t Topology) PeerSubnets() []netip.Prefix {
	list := make([]netip.Prefix, 0, len(t.Peers)+1)
	for _, n := range t.Holders() {
		list = append(list, n.Subnets...)
	}
	return list
}

// PeerOf is the peer that has an address, as its own or in its subnets.
func (t Topology) PeerOf(a netip.Addr) (config.Node, bool) {
	for _, p := range t.Peers {
		if p.Address == a || slices.ContainsFunc(p.Subnets, func(s netip.Prefix) bool { return s.Contains(a) }) {
			return p, true
		}
	}
	p, ok := t.Fan.Node(a)
	if !ok {
		p, ok = t.Fan.Owner(a)
	}
	return p, ok && p.Address != t.Self.Address
}

// Find finds this host among the nodes of a configuration; local are its addresses.
// The error wraps ErrNotReady or config.ErrInvalid.
func Find(b *config.Base, local []netip.Addr) (Topology, error) {
	if !b.Fan.IsZero() {
		return findInFan(b.Fan, b.Node, local)
	}
	list, err := Configured(b)
	if err != nil {
		return Topology{}, err
	}
	return Resolve(list, b.Node, local)
}

// findInFan finds this host by its address on the underlay, which is node unless that
// is "".
func findInFan(f config.Fan, node string, local []netip.Addr) (t Topology, err error) {
	var here []netip.Addr
	for _, a := range local {
		if f.Underlay.Contains(a) && (node == "" || a.String() == node) && !slices.Contains(here, a) {
			here = append(here, a)
		}
	}
	t.Local = len(here) > 0
	if a, err := netip.ParseAddr(node); err == nil && len(here) == 0 {
		here = append(here, a) // behind NAT
	}
	switch {
	case len(here) == 0:
		return Topology{}, fmt.Errorf(
			"%w: nodes.underlay %s: none of this host's addresses (%s) is in it: give it one, or name it with the key node",
			config.ErrInvalid, f.Underlay, addressList(local))
	case len(here) > 1:
		return Topology{}, fmt.Errorf("%w: nodes.underlay %s: %s and %s are both this host's: name one of them with the key node",
			config.ErrInvalid, f.Underlay, here[0], here[1])
	}
	var ok bool
	if t.Self, ok = f.Node(here[0]); !ok {
		return Topology{}, fmt.Errorf("%w: node %q: not in %s, the underlay", config.ErrInvalid, node, f.Underlay)
	}
	t.Fan = f
	return t, nil
}

// Configured returns the nodes of a configuration: those of its key nodes, or of
// the file that its key nodesFile names. The error wraps ErrNotReady where the file
// is absent, and config.ErrInvalid where its content is invalid.
func Configured(b *config.Base) ([]config.Node, error) {
	if b.NodesFile == "" {
		return b.Nodes, nil
	}
	return Load(b.NodesFile)
}

// Resolve finds this host among nodes: the entry with the name node or, if node is
// "", the one whose address is in local, this host's addresses. The error wraps
// config.ErrInvalid; it names local where no entry fits.
func Resolve(nodes []config.Node, node string, local []netip.Addr) (Topology, error) {
	var t Topology
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
			return t, fmt.Errorf("%w: nodes: %s and %s are both this host: name one of them with the key node", config.ErrInvalid, nodes[at], n)
		default:
			at = i
		}
	}
	if at < 0 && node != "" {
		return t, fmt.Errorf("%w: node %q: no entry of nodes has this name", config.ErrInvalid, node)
	}
	if at < 0 {
		return t, fmt.Errorf(
			"%w: nodes: no entry for this host: none of its addresses (%s) is listed; add it, or name its entry with the key node",
			config.ErrInvalid, addressList(local))
	}
	t.Self = nodes[at]
	t.Local = here[t.Self.Address]
	if t.Peers = slices.Clip(nodes[1:]); at > 0 { // thousands are not copied without need
		t.Peers = append(append(make([]config.Node, 0, len(nodes)-1), nodes[:at]...), nodes[at+1:]...)
	}
	return t, nil
}

// addressList returns, for a message, the addresses that could stand in nodes.
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
