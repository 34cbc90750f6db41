package kernel

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ne is netlink's byte order: the machine's.
var ne = binary.NativeEndian

// A message is a netlink request, header included. Its length and sequence
// number are filled in when it is sent.
type message []byte

// newMessage begins a message with the fixed part of its payload.
func newMessage(typ, flags uint16, body []byte) message {
	m := make(message, unix.NLMSG_HDRLEN, 128)
	ne.PutUint16(m[4:], typ)
	ne.PutUint16(m[6:], flags|unix.NLM_F_REQUEST)
	return append(m, body...)
}

func (m message) kind() uint16 { return ne.Uint16(m[4:]) }

// isGet: the answer is a message of its own. rtnetlink numbers its messages in
// fours: new, delete, get, set (linux/rtnetlink.h).
func (m message) isGet() bool { return m.kind()&3 == 2 }

func (m message) addFlags(flags uint16) { ne.PutUint16(m[6:], ne.Uint16(m[6:])|flags) }

// attr appends an attribute.
func (m message) attr(typ uint16, value []byte) message {
	m = ne.AppendUint16(m, uint16(unix.SizeofNlAttr+len(value)))
	m = ne.AppendUint16(m, typ)
	m = append(m, value...)
	for len(m)%unix.NLA_ALIGNTO != 0 {
		m = append(m, 0)
	}
	return m
}

func (m message) u8(typ uint16, v uint8) message { return m.attr(typ, []byte{v}) }

func (m message) u32(typ uint16, v int) message {
	return m.attr(typ, ne.AppendUint32(nil, uint32(v)))
}

func (m message) text(typ uint16, s string) message { return m.attr(typ, append([]byte(s), 0)) }

func (m message) addr(typ uint16, a netip.Addr) message { return m.attr(typ, a.AsSlice()) }

// nest appends an attribute that holds what inner appends.
func (m message) nest(typ uint16, inner func(message) message) message {
	at := len(m)
	m = inner(m.attr(typ|unix.NLA_F_NESTED, nil))
	ne.PutUint16(m[at:], uint16(len(m)-at))
	return m
}

// attrs walks over attributes; it ends where they are malformed.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			n := int(ne.Uint16(b))
			if n < unix.SizeofNlAttr || n > len(b) {
				return
			}
			if !yield(ne.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:n]) {
				return
			}
			b = b[min(align4(n), len(b)):]
		}
	}
}

func align4(n int) int { return (n + 3) &^ 3 }

// getU32 reads an attribute of four bytes; 0 where it is shorter.
func getU32(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(ne.Uint32(b))
}

// getText reads a string up to its zero byte.
func getText(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func getAddr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
