package firewall

import (
	"bytes"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// An elementSet is a set or a map of nf_tables with its elements.
type elementSet struct {
	keyLen int
	// spans are the keys, sorted, as far as these are no concatenations.
	spans   []span
	members []member
	// other is the effect of the catch-all element; nil is none.
	other *effect
	// large: it has more than largeSet bytes and was not read.
	large bool
}

// largeSet is up to how many bytes the elements of a set are read; it is some
// thousand elements. Lists of blocked addresses may have many more, and do not
// decide about packets of a network.
const largeSet = 1 << 17

// A member is an interval of keys, in a concatenation one of each part, and the
// effect that it has in a verdict map.
type member struct {
	span
	effect
}

// elementSet reads a set.
func (r *reader) elementSet(family byte, table, name string) (*elementSet, error) {
	info, err := r.set(family, table, name)
	if err != nil {
		return nil, err
	}
	elems, err := r.someElements(largeSet, family, table, name)
	if errors.Is(err, errLarge) {
		unknown := member{effect: effect{verdict: drops, match: perhaps}}
		return &elementSet{keyLen: int(info.keyLen), large: true, members: []member{unknown}}, nil
	}
	if err != nil {
		return nil, err
	}
	const catchall, concat = 2, 0x80 // NFT_SET_ELEM_CATCHALL, NFT_SET_CONCAT
	s := &elementSet{keyLen: int(info.keyLen)}
	interval := info.flags&unix.NFT_SET_INTERVAL != 0 && info.flags&concat == 0 &&
		!slices.ContainsFunc(elems, func(e *element) bool { return e.end != nil })
	slices.SortFunc(elems, byKey)
	for i, e := range elems {
		verdict := parseVerdict(parse(e.verdict))
		switch {
		case e.flags&catchall != 0:
			s.other = &verdict
		case e.flags&unix.NFT_SET_ELEM_INTERVAL_END != 0 || len(e.key) != s.keyLen:
		case interval:
			s.members = append(s.members, member{span{e.key, before(elems[i+1:], len(e.key))}, verdict})
		default:
			m := member{span{e.key, e.key}, verdict}
			if len(e.end) == len(e.key) {
				m.hi = e.end
			}
			s.members = append(s.members, m)
		}
	}
	for _, m := range s.members {
		s.spans = append(s.spans, m.span)
	}
	if s.other != nil && info.flags&unix.NFT_SET_MAP == 0 {
		s.spans, s.members = []span{anything(s.keyLen)}, []member{{span: anything(s.keyLen)}}
	}
	return s, nil
}

// before is the last key in front of the next boundary.
func before(rest []*element, size int) []byte {
	if len(rest) == 0 || len(rest[0].key) != size {
		return anything(size).hi
	}
	b := bytes.Clone(rest[0].key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return b
}

// holds answers whether the value is in the set.
func (s *elementSet) holds(v value) answer {
	if s.large {
		return perhaps
	}
	if len(v.fields) == 1 {
		return v.fields[0].in(s.spans)
	}
	out := no
	for _, m := range s.members {
		switch a := m.holds(v); a {
		case yes:
			return yes
		case no:
		default:
			out = max(out, a)
		}
	}
	return out
}

func (m member) holds(v value) answer {
	out, at := yes, 0
	for _, f := range v.fields {
		if at+f.size > len(m.lo) {
			return perhaps
		}
		out = min(out, f.in([]span{{m.lo[at : at+f.size], m.hi[at : at+f.size]}}))
		at += f.size
	}
	return out
}
