package agent

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ovs-gre-cni/pkg/config"
)

// A Source has the list of the network's hosts.
type Source interface {
	// Run watches the list until ctx ends, and calls changed when the result of
	// List may have changed.
	Run(ctx context.Context, changed func()) error
	// List returns the present list. The error wraps nodes.ErrNotReady as long as
	// the source has not received any.
	List() (List, error)
}

// A Publisher is a Source by which this host tells the others its public key for
// WireGuard.
type Publisher interface {
	// Publish makes it this host's key in everybody's List.
	Publish(ctx context.Context, key string) error
}

// A List is what a source knows.
type List struct {
	// Nodes are the hosts of the network, in the order of their names.
	Nodes []config.Node
	// LeftOut has the reason for each host that is not in Nodes, by its name.
	LeftOut map[string]string
	// Runtime is this host's container runtime with its version as Kubernetes writes
	// it, such as containerd://2.1.0; "" means unknown.
	Runtime string
}

// A Candidate is a host that may become a node of the network.
type Candidate struct {
	Name string
	// Addresses are its addresses on the underlay, the best of a family first.
	Addresses []netip.Addr
	// Subnets are its container subnets.
	Subnets []netip.Prefix
	// Key is its public key for WireGuard; "" is not known.
	Key string
	// Since is when it came. Between two that exclude each other the older stays.
	Since time.Time
	// Leaving: the host is being removed, and excludes no other.
	Leaving bool
	// Problem is why it cannot be a node; "" means that nothing is known against it.
	Problem string
}

// Select returns the candidates that become nodes, and the reason for each that does not.
// The result depends on the candidates alone, so that all hosts select the same. The
// oldest candidate decides the family of all addresses: IPv4 if it has an IPv4 address.
func Select(candidates []Candidate) (nodes []config.Node, leftOut map[string]string) {
	list := slices.SortedFunc(slices.Values(candidates), func(a, b Candidate) int {
		if a.Leaving != b.Leaving {
			if a.Leaving {
				return 1
			}
			return -1
		}
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Name, b.Name))
	})
	leftOut = map[string]string{}
	var s selection
	for _, c := range list {
		if why := s.add(c); why != "" {
			leftOut[c.Name] = why
		}
	}
	slices.SortFunc(s.nodes, func(a, b config.Node) int { return strings.Compare(a.Name, b.Name) })
	return s.nodes, leftOut
}

// selection is the state of one call of Select.
type selection struct {
	nodes []config.Node
	set   config.NodeSet
	// v6 is the family of all, decided by the first of nodes.
	v6 bool
}

// add makes a candidate a node, or returns the reason why it cannot be one.
func (s *selection) add(c Candidate) string {
	if c.Problem != "" {
		return c.Problem
	}
	if len(c.Subnets) == 0 {
		return "it has no container subnet yet"
	}
	if len(s.nodes) == 0 {
		s.v6 = !slices.ContainsFunc(c.Addresses, netip.Addr.Is4)
	}
	i := slices.IndexFunc(c.Addresses, func(a netip.Addr) bool { return a.Is6() == s.v6 })
	if i < 0 {
		family := "IPv4"
		if s.v6 {
			family = "IPv6"
		}
		return "it has no " + family + " address, by which all others are reached"
	}
	n := config.Node{Name: c.Name, Address: c.Addresses[i], Subnets: c.Subnets, Key: c.Key}
	if err := n.Check(); err != nil {
		return err.Error()
	}
	if clashes := s.set.Clashes(&n); len(clashes) > 0 {
		return clashes[0].String()
	}
	s.nodes = append(s.nodes, n)
	s.set.Add(&n)
	return ""
}
