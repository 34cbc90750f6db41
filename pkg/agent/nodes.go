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

// A Source tells who the hosts of the network are.
type Source interface {
	// Run watches until ctx ends, and calls changed when List may answer
	// something else than before.
	Run(ctx context.Context, changed func()) error
	// List is what is known now. The error wraps nodes.ErrNotReady until
	// anything is.
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
	// LeftOut are the hosts that are not in Nodes, by name, and why.
	LeftOut map[string]string
	// Runtime is what starts containers on this host, as Kubernetes writes it:
	// containerd://2.1.0; "" is unknown.
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
	// Leaving: it is being taken away, and excludes nobody.
	Leaving bool
	// Problem is why it cannot be a node; "" is nothing.
	Problem string
}

// Select makes the nodes out of the candidates, and tells which are left out
// and why. All hosts that see the same candidates select the same. Of which
// family the addresses are, the oldest candidate decides: IPv4 if it has one.
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

// selection is one call of Select.
type selection struct {
	nodes []config.Node
	set   config.NodeSet
	// v6 is the family of all, decided by the first of nodes.
	v6 bool
}

// add makes a node of a candidate, or says why not.
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
