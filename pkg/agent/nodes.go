package agent

import (
	"cmp"
	"context"
	"fmt"
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
	s := selection{names: map[string]bool{}, macs: map[string]string{}}
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
	// v6 is the family of all, decided by the first of nodes.
	v6    bool
	names map[string]bool
	macs  map[string]string
	// subnets and addrs are those of nodes, sorted.
	subnets []owned[netip.Prefix]
	addrs   []owned[netip.Addr]
}

// owned is an address or subnet with the name of its node.
type owned[T any] struct {
	at   T
	node string
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
	n := config.Node{Name: c.Name, Address: c.Addresses[i], Subnets: c.Subnets}
	if err := n.Check(); err != nil {
		return err.Error()
	}
	if why := s.conflict(n); why != "" {
		return why
	}
	s.put(n)
	return ""
}

// conflict is why a node cannot be beside those that there are.
func (s *selection) conflict(n config.Node) string {
	if s.names[n.Name] {
		return "there is another of this name"
	}
	if other, taken := s.macs[config.MAC(n.Address)]; taken {
		return fmt.Sprintf("its address %s, or the MAC address that follows from it, is that of %s", n.Address, other)
	}
	for _, sub := range n.Subnets {
		i := s.before(sub.Addr())
		for _, o := range s.subnets[max(i-1, 0):min(i+1, len(s.subnets))] {
			if o.at.Overlaps(sub) {
				return fmt.Sprintf("its container subnet %s overlaps %s of %s", sub, o.at, o.node)
			}
		}
		j, _ := slices.BinarySearchFunc(s.addrs, sub.Addr(), func(o owned[netip.Addr], a netip.Addr) int { return o.at.Compare(a) })
		if j < len(s.addrs) && sub.Contains(s.addrs[j].at) {
			return fmt.Sprintf("its container subnet %s holds the address %s of %s", sub, s.addrs[j].at, s.addrs[j].node)
		}
		if sub.Contains(n.Address) {
			return fmt.Sprintf("its container subnet %s holds its own address %s", sub, n.Address)
		}
	}
	if i := s.before(n.Address); i > 0 && s.subnets[i-1].at.Contains(n.Address) {
		return fmt.Sprintf("its address %s lies in the container subnet %s of %s", n.Address, s.subnets[i-1].at, s.subnets[i-1].node)
	}
	return ""
}

// before counts the subnets that begin at an address or before it. They are
// disjoint, so that only the last of these can hold it.
func (s *selection) before(a netip.Addr) int {
	i, found := slices.BinarySearchFunc(s.subnets, a, func(o owned[netip.Prefix], a netip.Addr) int { return o.at.Addr().Compare(a) })
	if found {
		i++
	}
	return i
}

func (s *selection) put(n config.Node) {
	s.nodes, s.names[n.Name], s.macs[config.MAC(n.Address)] = append(s.nodes, n), true, n.Name
	j, _ := slices.BinarySearchFunc(s.addrs, n.Address, func(o owned[netip.Addr], a netip.Addr) int { return o.at.Compare(a) })
	s.addrs = slices.Insert(s.addrs, j, owned[netip.Addr]{n.Address, n.Name})
	for _, sub := range n.Subnets {
		s.subnets = slices.Insert(s.subnets, s.before(sub.Addr()), owned[netip.Prefix]{sub, n.Name})
	}
}
