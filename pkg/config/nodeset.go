package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// A NodeSet holds nodes that can be in one network together, and knows what
// must hold between them: names, keys, addresses, and the MAC addresses that
// follow from these, are unique; addresses are of one family; subnets overlap with no
// other, and hold no node's address. The zero NodeSet is empty. It stays quick
// for tens of thousands of nodes.
type NodeSet struct {
	nodes             []*Node
	names, macs, keys map[string]*Node
	// byAddr are the nodes, and subnets theirs, in order of the addresses. The
	// subnets are disjoint.
	byAddr  []*Node
	subnets []*owned
}

// owned is a subnet with its node.
type owned struct {
	netip.Prefix
	*Node
}

// A Clash is why a node cannot be beside others.
type Clash struct {
	// Key is the node's: name, address, key or subnets. Value is what it has there.
	Key, Value string
	// Reason follows on the value: "overlaps 10.0.0.0/8 of host1".
	Reason string
}

// String is the clash as a part of a sentence about the node.
func (c Clash) String() string {
	what := c.Key
	if what == "subnets" {
		what = "container subnet"
	}
	return fmt.Sprintf("its %s %s %s", what, c.Value, c.Reason)
}

// Clashes says why a node cannot be added, nil if it can. What is wrong with
// the node alone, Check says.
func (s *NodeSet) Clashes(n *Node) (list []Clash) {
	add := func(key string, value any, format string, args ...any) {
		list = append(list, Clash{key, fmt.Sprint(value), fmt.Sprintf(format, args...)})
	}
	mac := MAC(n.Address)
	if o := s.names[n.Name]; o != nil {
		add("name", n.Name, "belongs to %s already", o)
	}
	switch o := s.macs[mac]; {
	case o != nil && o.Address == n.Address:
		add("address", n.Address, "belongs to %s already", o.Name)
	case o != nil:
		add("address", n.Address, "makes the same MAC address %s as %s of %s: give one of the two another address", mac, o.Address, o.Name)
	}
	if o := s.keys[n.Key]; o != nil {
		add("key", n.Key, "belongs to %s already: each host makes its own", o.Name)
	}
	if len(s.nodes) > 0 && n.Address.Is4() != s.nodes[0].Address.Is4() {
		add("address", n.Address, "has another IP family than %s: tunnels need one underlay family", s.nodes[0])
	}
	if o := s.holding(n.Address); o != nil {
		add("address", n.Address, "lies in the container subnet %s of %s", o.Prefix, o.Name)
	}
	var outer netip.Prefix // what holds a subnet comes before it, and all it holds come next
	subnets := n.Subnets
	if !slices.IsSortedFunc(subnets, comparePrefix) {
		subnets = slices.SortedFunc(slices.Values(subnets), comparePrefix)
	}
	for _, sub := range subnets {
		if outer.IsValid() && outer.Overlaps(sub) {
			add("subnets", sub, "overlaps %s of the same node", outer)
			continue
		}
		outer = sub
		if _, o := s.overlapping(sub); o != nil {
			add("subnets", sub, "overlaps %s of %s", o.Prefix, o.Name)
		}
		if i, _ := slices.BinarySearchFunc(s.byAddr, sub.Addr(), compareAddr); i < len(s.byAddr) && sub.Contains(s.byAddr[i].Address) {
			add("subnets", sub, "holds the address %s of %s", s.byAddr[i].Address, s.byAddr[i].Name)
		}
		if sub.Contains(n.Address) {
			add("subnets", sub, "holds the node's own address %s", n.Address)
		}
	}
	return list
}

// Add adds a node; of one that clashes, what does not.
func (s *NodeSet) Add(n *Node) {
	if s.names == nil {
		s.grow(0)
	}
	s.nodes, s.names[n.Name], s.macs[MAC(n.Address)] = append(s.nodes, n), n, n
	if n.Key != "" {
		s.keys[n.Key] = n
	}
	i, _ := slices.BinarySearchFunc(s.byAddr, n.Address, compareAddr)
	s.byAddr = slices.Insert(s.byAddr, i, n)
	for _, sub := range n.Subnets {
		if i, o := s.overlapping(sub); o == nil {
			s.subnets = slices.Insert(s.subnets, i, &owned{sub, n})
		}
	}
}

// grow makes room for a number of nodes in an empty set.
func (s *NodeSet) grow(n int) {
	s.names, s.macs, s.keys = make(map[string]*Node, n), make(map[string]*Node, n), map[string]*Node{}
	s.nodes, s.byAddr, s.subnets = make([]*Node, 0, n), make([]*Node, 0, n), make([]*owned, 0, n)
}

func compareAddr(n *Node, a netip.Addr) int { return n.Address.Compare(a) }

// before counts the subnets that begin at an address or before it: only the
// last of these can hold it.
func (s *NodeSet) before(a netip.Addr) int {
	i, found := slices.BinarySearchFunc(s.subnets, a, func(o *owned, a netip.Addr) int { return o.Addr().Compare(a) })
	if found {
		i++
	}
	return i
}

// holding is the subnet with an address; nil is none.
func (s *NodeSet) holding(a netip.Addr) *owned {
	if i := s.before(a); i > 0 && s.subnets[i-1].Contains(a) {
		return s.subnets[i-1]
	}
	return nil
}

// overlapping is a subnet that overlaps, nil if there is none, and the place in
// the list for this one.
func (s *NodeSet) overlapping(sub netip.Prefix) (int, *owned) {
	i := s.before(sub.Addr())
	for _, o := range s.subnets[max(i-1, 0):min(i+1, len(s.subnets))] {
		if o.Overlaps(sub) {
			return i, o
		}
	}
	return i, nil
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
