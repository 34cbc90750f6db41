package firewall

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Packet is a class of packets: all those with these links, a source in From, a
// destination in To, and so on.
type Packet struct {
	// In and Out are the links by which the packet comes and leaves; "" is a link
	// that no rule names.
	In, Out string
	// IPv6: it is an IPv6 packet; false is IPv4.
	IPv6 bool
	// From and To hold the source and the destination; nil is any address.
	From, To []netip.Prefix
	// Proto is the IP protocol, Port the destination port; 0 is any.
	Proto byte
	Port  uint16
	// State is the packet's state in connection tracking.
	State State
}

// State is the state of a packet in connection tracking.
type State byte

// The states that a Packet may have.
const (
	New        State = iota // first packet of a connection
	Answer                  // packet of an established connection
	Translated              // first packet of a connection, to a destination changed by DNAT
)

// Bits of ct state (NF_CT_STATE_BIT) and of ct status (enum ip_conntrack_status).
const (
	ctEstablished, ctRelated, ctNew = 2, 4, 8
	ctSeenReply, ctConfirmed        = 1 << 1, 1 << 3
	ctDNAT                          = 1 << 5
)

func (s State) bits() (state, status uint32) {
	switch s {
	case Answer:
		return ctEstablished, ctSeenReply | ctConfirmed
	case Translated:
		return ctNew, ctDNAT
	}
	return ctNew, 0
}

// An answer tells for which packets of a class a condition holds. The minimum of two
// answers is the answer to both conditions together.
type answer byte

const (
	no      answer = iota // for none
	perhaps               // unknown
	part                  // for some
	yes                   // for all
)

func (a answer) not() answer {
	switch a {
	case no:
		return yes
	case yes:
		return no
	}
	return a
}

// A span is the interval of values from lo to hi, of equal length, in the order of
// bytes.Compare.
type span struct{ lo, hi []byte }

func exactly(b ...byte) []span { return []span{{b, b}} }

// A field is a part of a packet.
type field struct {
	size int
	// spans hold the possible values; nil is unknown.
	spans []span
	// other: the value is a link that no rule names.
	other bool
}

// in answers whether the field's values are in a sorted list of spans.
func (f field) in(list []span) answer {
	switch {
	case f.other && len(list) > 0:
		return part
	case len(f.spans) == 0 && !f.other:
		return perhaps
	}
	all, none := true, true
	for _, s := range f.spans {
		hit, whole := s.covered(list)
		all, none = all && whole, none && !hit
	}
	switch {
	case none:
		return no
	case all:
		return yes
	}
	return part
}

// covered reports whether the list holds any value of s, and whether it holds all.
func (s span) covered(list []span) (hit, whole bool) {
	next, done := s.lo, false
	for _, l := range list {
		if bytes.Compare(l.hi, s.lo) < 0 || bytes.Compare(l.lo, s.hi) > 0 {
			continue
		}
		hit = true
		if done || bytes.Compare(l.lo, next) > 0 {
			continue
		}
		if bytes.Compare(l.hi, s.hi) >= 0 {
			done = true
		} else if after := increment(l.hi); bytes.Compare(after, next) > 0 {
			next = after
		}
	}
	return hit, done
}

// increment is the value after b; of the last one, b itself.
func increment(b []byte) []byte {
	out := bytes.Clone(b)
	for i := len(out) - 1; i >= 0; i-- {
		out[i]++
		if out[i] != 0 {
			return out
		}
	}
	return b
}

// cut is the part of the field of size bytes from byte at on.
func (f field) cut(at, size int) field {
	out := field{size: size, other: f.other}
	if at == 0 && size == f.size {
		return f
	}
	for _, s := range f.spans {
		if at > 0 && !bytes.Equal(s.lo, s.hi) {
			return field{size: size} // the last bytes of a range are not a range
		}
		out.spans = append(out.spans, span{s.lo[at : at+size], s.hi[at : at+size]})
	}
	return out
}

// masked is the field & mask ^ xor.
func (f field) masked(mask, xor []byte) field {
	out := field{size: f.size}
	prefix := leading(mask) && len(bytes.Trim(xor, "\x00")) == 0
	for _, s := range f.spans {
		if !prefix && !bytes.Equal(s.lo, s.hi) {
			return field{size: f.size}
		}
		lo, hi := bytes.Clone(s.lo), bytes.Clone(s.hi)
		for i := range lo {
			lo[i], hi[i] = lo[i]&mask[i]^xor[i], hi[i]&mask[i]^xor[i]
		}
		out.spans = append(out.spans, span{lo, hi})
	}
	return out
}

// leading reports whether a mask is that of a prefix. Such a mask keeps the order of
// values.
func leading(mask []byte) bool {
	end := false
	for _, b := range mask {
		if inv := ^b; inv&(inv+1) != 0 || end && b != 0 {
			return false
		}
		end = end || b != 0xff
	}
	return true
}

// link is a link's name as meta loads it.
func link(name string) field {
	if name == "" {
		return field{size: unix.IFNAMSIZ, other: true}
	}
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return field{size: len(b), spans: exactly(b...)}
}

func number(n uint32) field {
	return field{size: 4, spans: exactly(binary.NativeEndian.AppendUint32(nil, n)...)}
}

// addrs is an address in a list of prefixes, none of which is in another.
func (p *Packet) addrs(list []netip.Prefix) field {
	f := field{size: 4}
	if p.IPv6 {
		f.size = 16
	}
	for _, c := range list {
		c = c.Masked()
		f.spans = append(f.spans, span{c.Addr().AsSlice(), last(c).AsSlice()})
	}
	if len(list) == 0 {
		f.spans = []span{anything(f.size)}
	}
	return f
}

func anything(size int) span {
	return span{make([]byte, size), bytes.Repeat([]byte{0xff}, size)}
}

func (p *Packet) proto() field {
	if p.Proto == 0 {
		return field{size: 1, spans: []span{anything(1)}}
	}
	return field{size: 1, spans: exactly(p.Proto)}
}

// ports are the source and the destination port.
func (p *Packet) ports() (src, dst field) {
	src = field{size: 2, spans: []span{anything(2)}}
	if dst = src; p.Port != 0 {
		dst = field{size: 2, spans: exactly(binary.BigEndian.AppendUint16(nil, p.Port)...)}
	}
	return src, dst
}

// A placed field is one with its offset in a header.
type placed struct {
	at int
	field
}

// network are the known fields of the network header (RFC 791, RFC 8200).
func (p *Packet) network() []placed {
	if p.IPv6 {
		return []placed{{6, p.proto()}, {8, p.addrs(p.From)}, {24, p.addrs(p.To)}}
	}
	return []placed{{9, p.proto()}, {12, p.addrs(p.From)}, {16, p.addrs(p.To)}}
}

// transport are the known fields of the transport header (RFC 768, RFC 9293).
func (p *Packet) transport() []placed {
	src, dst := p.ports()
	return []placed{{0, src}, {2, dst}}
}

// loaded are size bytes of a header from offset on: known fields, and unknown ones
// between them.
func loaded(layout []placed, offset, size int) []field {
	for _, f := range layout {
		if f.at == offset && f.size == size {
			return []field{f.field}
		}
	}
	var list []field
	for at, end := offset, offset+size; at < end; {
		n, gap := end-at, true
		for _, f := range layout {
			if at >= f.at && at < f.at+f.size {
				n = min(n, f.at+f.size-at)
				list, gap = append(list, f.cut(at-f.at, n)), false
				break
			}
			if f.at > at {
				n = min(n, f.at-at)
			}
		}
		if gap {
			list = append(list, field{size: n})
		}
		at += n
	}
	return list
}
