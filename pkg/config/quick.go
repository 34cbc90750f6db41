package config

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

// quickNodes reads a list of nodes in which all is in order, ten times as fast as
// nodes, which can say what is not: thousands of nodes are read at every call. It
// takes nothing that nodes or strict has a word against; ok is false then, and
// where a string has an escape or is not ASCII.
func quickNodes(raw []byte) (list []Node, ok bool) {
	const brief = 64 // bytes of a node: fewer make the lists grow
	q := quick{text: raw, subnets: make([]netip.Prefix, 0, len(raw)/brief)}
	q.names.Grow(len(raw) / 8)
	if !q.is('[') {
		return nil, false
	}
	list = make([]Node, 0, len(raw)/brief)
	for q.peek() != ']' || len(list) > 0 {
		n, ok := q.node()
		if !ok {
			return nil, false
		}
		list = append(list, n)
		if !q.is(',') {
			break
		}
	}
	if !q.is(']') || q.peek() != 0 || q.at < len(q.text) || !agree(list, q.subnets) {
		return nil, false
	}
	return list, true
}

// quick is a text that is read from at on. The nodes have parts of one string of names
// and of one list of subnets: a piece of memory for each takes as long as reading.
type quick struct {
	text    []byte
	at      int
	names   strings.Builder
	subnets []netip.Prefix
}

// peek is the first byte of the next token; 0 is the end.
func (q *quick) peek() byte {
	for ; q.at < len(q.text); q.at++ {
		if c := q.text[q.at]; c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c
		}
	}
	return 0
}

// is takes a token of one byte.
func (q *quick) is(c byte) bool {
	if q.peek() != c {
		return false
	}
	q.at++
	return true
}

func (q *quick) str() (s []byte, ok bool) {
	if !q.is('"') {
		return nil, false
	}
	rest := q.text[q.at:]
	for i, c := range rest {
		switch {
		case c == '"':
			q.at += i + 1
			return rest[:i], true
		case c < ' ' || c > '~' || c == '\\':
			return nil, false
		}
	}
	return nil, false
}

func (q *quick) node() (n Node, ok bool) {
	if !q.is('{') {
		return n, false
	}
	for {
		key, ok := q.str()
		if !ok || !q.is(':') {
			return n, false
		}
		switch string(key) {
		case "name":
			name, ok := q.str()
			if !ok || n.Name != "" || len(name) == 0 || len(name) > 253 {
				return n, false
			}
			from := q.names.Len()
			_, _ = q.names.Write(name) // never fails
			n.Name = q.names.String()[from:]
		case "address":
			text, ok := q.str()
			a, read := quickAddr(text)
			if !ok || n.Address.IsValid() || !read || !isUnderlay(a) {
				return n, false
			}
			n.Address = a
		case "subnets":
			if n.Subnets != nil || !q.subnetsOf(&n) {
				return n, false
			}
		default:
			return n, false
		}
		if !q.is(',') {
			break
		}
	}
	return n, q.is('}') && n.Name != "" && n.Address.IsValid() && len(n.Subnets) > 0
}

func (q *quick) subnetsOf(n *Node) bool {
	if !q.is('[') {
		return false
	}
	first := len(q.subnets)
	for {
		text, ok := q.str()
		s, read := quickPrefix(text)
		if !ok || !read {
			return false
		}
		q.subnets = append(q.subnets, s)
		if !q.is(',') {
			n.Subnets = slices.Clip(q.subnets[first:])
			return q.is(']')
		}
	}
}

// quickAddr is netip.ParseAddr, which for each makes an error that is not wanted.
func quickAddr(text []byte) (netip.Addr, bool) {
	if b, rest, ok := quick4(text); ok && len(rest) == 0 {
		return netip.AddrFrom4(b), true
	}
	a, err := netip.ParseAddr(string(text))
	return a, err == nil
}

// quickPrefix reads a subnet that can be for containers.
func quickPrefix(text []byte) (netip.Prefix, bool) {
	if b, rest, ok := quick4(text); ok && len(rest) == 3 && rest[0] == '/' {
		length := int(rest[1]-'0')*10 + int(rest[2]-'0')
		host := binary.BigEndian.Uint32(b[:]) << (length & 31)
		if '1' <= rest[1] && rest[1] <= '3' && '0' <= rest[2] && rest[2] <= '9' && length <= 30 && host == 0 &&
			b[0] != 0 && b[0] != 127 && b[0] < 224 {
			return netip.PrefixFrom(netip.AddrFrom4(b), length), true // none of those that are not for containers
		}
	}
	s, err := netip.ParsePrefix(string(text))
	return s, err == nil && s == s.Masked() && !s.Addr().Is4In6() && s.Addr().BitLen()-s.Bits() >= 2 &&
		!slices.ContainsFunc(notForContainers, func(no netip.Prefix) bool { return overlap(no, s) })
}

// quick4 reads an IPv4 address, and returns what follows.
func quick4(text []byte) (b [4]byte, rest []byte, ok bool) {
	for i := range b {
		n, digits := 0, 0
		for digits < len(text) && '0' <= text[digits] && text[digits] <= '9' && digits < 3 {
			n = 10*n + int(text[digits]-'0')
			digits++
		}
		if digits == 0 || n > 255 || digits > 1 && text[0] == '0' {
			return b, nil, false
		}
		b[i], text = byte(n), text[digits:]
		if i < 3 {
			if len(text) == 0 || text[0] != '.' {
				return b, nil, false
			}
			text = text[1:]
		}
	}
	return b, text, true
}

// overlap is Prefix.Overlaps of two without host bits, of which the wider has the
// other's address.
func overlap(a, b netip.Prefix) bool {
	if a.Bits() > b.Bits() {
		a, b = b, a
	}
	return a.Contains(b.Addr())
}

// isUnderlay reports whether an address can be a node's.
func isUnderlay(a netip.Addr) bool {
	if a.Is4() && (a.As4()[0] == 0 || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})) {
		return false // this network, limited broadcast (RFC 6890)
	}
	return a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.IsLinkLocalUnicast()
}

// agree reports whether together has nothing to say about nodes, which have these
// subnets.
func agree(nodes []Node, subnets []netip.Prefix) bool {
	names, macs := newDistinct(len(nodes)), newDistinct(len(nodes))
	for i, n := range nodes {
		var hash uint32 // FNV-1a
		for k := range len(n.Name) {
			hash = (hash ^ uint32(n.Name[k])) * 16777619
		}
		if n.Address.Is4() != nodes[0].Address.Is4() || !names.add(i, hash, func(j int) bool { return nodes[j].Name == n.Name }) {
			return false
		}
		mac := macBytes(n.Address) // equal addresses have equal MACs
		if !macs.add(i, binary.BigEndian.Uint32(mac[:])*0x9e3779b1>>7, func(j int) bool { return macBytes(nodes[j].Address) == mac }) {
			return false
		}
	}
	if !slices.IsSortedFunc(subnets, comparePrefix) {
		subnets = slices.Clone(subnets)
		slices.SortFunc(subnets, comparePrefix)
	}
	for i := range subnets {
		if i > 0 && overlap(subnets[i-1], subnets[i]) {
			return false
		}
	}
	var above, below netip.Addr // addresses between two subnets
	for _, n := range nodes {
		if above.IsValid() && above.Less(n.Address) && n.Address.Less(below) {
			continue // as mostly all are
		}
		i, _ := slices.BinarySearchFunc(subnets, n.Address, func(s netip.Prefix, a netip.Addr) int {
			if s.Addr().Compare(a) <= 0 {
				return -1
			}
			return 1
		})
		above, below = n.Address, n.Address
		if i > 0 {
			if subnets[i-1].Contains(n.Address) {
				return false
			}
			above = last(subnets[i-1])
		}
		if i < len(subnets) {
			below = subnets[i].Addr()
		}
	}
	return true
}

// A distinct finds out whether values of a list are different: a map for it takes
// longer than reading the list. Each entry is an index of the list and 1.
type distinct []uint32

// newDistinct makes room for a number of values.
func newDistinct(n int) distinct { return make(distinct, 1<<bits.Len(uint(n+n/4))) }

// add adds the value with index i and reports whether it is new; same compares it with
// that of another index.
func (d distinct) add(i int, hash uint32, same func(j int) bool) bool {
	at := int(hash) & (len(d) - 1)
	for ; d[at] != 0; at = (at + 1) & (len(d) - 1) {
		if same(int(d[at] - 1)) {
			return false
		}
	}
	d[at] = uint32(i + 1)
	return true
}

// last is the last address of a subnet.
func last(s netip.Prefix) netip.Addr {
	b := s.Addr().AsSlice()
	for i := range b {
		if bits := s.Bits() - 8*i; bits < 8 {
			b[i] |= 0xff >> max(bits, 0)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
