package openflow

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Local is the number of a bridge's internal port (OFPP_LOCAL).
const Local = 0xfffffffe

// anyPort stands for no port in particular (OFPP_ANY).
const anyPort = 0xffffffff

// A MAC is an Ethernet address.
type MAC [6]byte

// ParseMAC is net.ParseMAC for six bytes; it returns the zero MAC for any other string.
func ParseMAC(s string) (m MAC) {
	if hw, err := net.ParseMAC(s); err == nil && len(hw) == len(m) {
		copy(m[:], hw)
	}
	return m
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// A Match tells which frames a flow matches. The zero Match matches all frames.
type Match struct {
	// InPort is the OpenFlow number of the port that the frame comes by; 0 is any.
	InPort uint32
	// EthDst is the destination, in the bits of EthDstMask; the zero mask is any
	// destination.
	EthDst, EthDstMask MAC
	// IPSrc and IPDst hold source and destination of their IP packets; the zero
	// Prefix is any. If both are given, they are of one family.
	IPSrc, IPDst netip.Prefix
	// TunSrc holds the outer source address of the tunnel that they came by; the
	// zero Prefix is any, and none.
	TunSrc netip.Prefix
}

// A Flow is an entry of table 0. Its actions are applied in the order of the fields. Two
// flows with equal Priority and Match are the same flow.
type Flow struct {
	// Priority: the matching flow with the highest one applies.
	Priority uint16
	Match
	// SetEthDst becomes the Ethernet destination; the zero MAC leaves it.
	SetEthDst MAC
	// TunDst becomes the outer destination of a tunnel with remote_ip=flow; the zero
	// Addr leaves it.
	TunDst netip.Addr
	// Moves are done one after the other.
	Moves []Move
	// Output is the port that the frames leave by; 0 drops them.
	Output uint32
}

// A Move copies bits from one field of a frame to another. Bits are counted from the
// field's last, which is 0.
type Move struct {
	From, To                Field
	FromBit, ToBit, NumBits int
}

// A Field is the destination of a frame, or an IPv4 address that comes with it.
type Field uint32

// The fields of moves, as the upper 25 bits of their headers (nicira-ext.h).
const (
	EthDst Field = 0x0000<<7 | 1  // NXM_OF_ETH_DST
	IPSrc  Field = 0x0000<<7 | 7  // NXM_OF_IP_SRC
	IPDst  Field = 0x0000<<7 | 8  // NXM_OF_IP_DST
	TunSrc Field = 0x0001<<7 | 31 // NXM_NX_TUN_IPV4_SRC
	TunDst Field = 0x0001<<7 | 32 // NXM_NX_TUN_IPV4_DST
)

// form is the field's name and its length in bytes.
func (f Field) form() (name string, size uint32) {
	switch f {
	case EthDst:
		return "NXM_OF_ETH_DST", 6
	case IPSrc:
		return "NXM_OF_IP_SRC", 4
	case IPDst:
		return "NXM_OF_IP_DST", 4
	case TunSrc:
		return "NXM_NX_TUN_IPV4_SRC", 4
	}
	return "NXM_NX_TUN_IPV4_DST", 4
}

// bits is a part of the field, as ovs-actions(7) has it.
func (f Field) bits(first, n int) string {
	name, size := f.form()
	if n == int(8*size) {
		return name + "[]"
	}
	return fmt.Sprintf("%s[%d..%d]", name, first, first+n-1)
}

func (m Move) String() string {
	return "move:" + m.From.bits(m.FromBit, m.NumBits) + "->" + m.To.bits(m.ToBit, m.NumBits)
}

// exact is the mask of a whole Ethernet address.
var exact = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ToMAC is the Match of frames to one Ethernet destination.
func ToMAC(m MAC) Match { return Match{EthDst: m, EthDstMask: exact} }

// String is the flow in the syntax of ovs-ofctl(8), without its cookie.
func (f Flow) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "priority=%d", f.Priority)
	if f.InPort != 0 {
		b.WriteString(",in_port=" + port(f.InPort))
	}
	if f.TunSrc.Addr().Is4() {
		b.WriteString(",tun_src=" + host(f.TunSrc))
	} else if f.TunSrc.IsValid() {
		b.WriteString(",tun_ipv6_src=" + host(f.TunSrc))
	}
	if f.EthDstMask == exact {
		b.WriteString(",dl_dst=" + f.EthDst.String())
	} else if f.EthDstMask != (MAC{}) {
		b.WriteString(",dl_dst=" + f.EthDst.String() + "/" + f.EthDstMask.String())
	}
	if f.IPDst.Addr().Is4() || f.IPSrc.Addr().Is4() {
		b.WriteString(",ip")
	} else if f.IPDst.IsValid() || f.IPSrc.IsValid() {
		b.WriteString(",ipv6")
	}
	for _, ip := range []struct {
		p    netip.Prefix
		name string
	}{{f.IPSrc, "src"}, {f.IPDst, "dst"}} {
		if ip.p.Addr().Is4() {
			b.WriteString(",nw_" + ip.name + "=" + ip.p.String())
		} else if ip.p.IsValid() {
			b.WriteString(",ipv6_" + ip.name + "=" + ip.p.String())
		}
	}
	return b.String() + " actions=" + f.actionText()
}

// host is a prefix, or the address that it is.
func host(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func (f Flow) actionText() string {
	var list []string
	if f.SetEthDst != (MAC{}) {
		list = append(list, "set_field:"+f.SetEthDst.String()+"->eth_dst")
	}
	if f.TunDst.Is4() {
		list = append(list, "set_field:"+f.TunDst.String()+"->tun_dst")
	} else if f.TunDst.IsValid() {
		list = append(list, "set_field:"+f.TunDst.String()+"->tun_ipv6_dst")
	}
	for _, m := range f.Moves {
		list = append(list, m.String())
	}
	if f.Output == 0 {
		return "drop"
	}
	return strings.Join(append(list, "output:"+port(f.Output)), ",")
}

func port(n uint32) string {
	if n == Local {
		return "LOCAL"
	}
	return strconv.FormatUint(uint64(n), 10)
}

// Fields of matches and actions, as the upper 25 bits of their headers
// (OFPXMT_OFB_*, NXM_NX_TUN_*).
const (
	oxmInPort   = 0x8000 << 7 // field 0
	oxmEthDst   = 0x8000<<7 | 3
	oxmEthType  = 0x8000<<7 | 5
	oxmIPv4Src  = 0x8000<<7 | 11
	oxmIPv4Dst  = 0x8000<<7 | 12
	oxmIPv6Src  = 0x8000<<7 | 26
	oxmIPv6Dst  = 0x8000<<7 | 27
	nxmTun6Src  = 0x0001<<7 | 109
	nxmTun6Dst  = 0x0001<<7 | 110
	masked      = 1 << 8
	nicira      = 0x00002320
	nxRegMove   = 6
	vendorType  = 0xffff
	outputType  = 0
	setField    = 25
	applyAction = 4
)

// field appends a header and its value.
func field(b []byte, f uint32, value []byte, mask ...byte) []byte {
	head := f<<9 | uint32(len(value)+len(mask))
	if len(mask) > 0 {
		head |= masked
	}
	return append(append(binary.BigEndian.AppendUint32(b, head), value...), mask...)
}

// encode appends the match with its header, padded to a multiple of eight bytes. Each field
// comes behind those that are its prerequisites.
func (m Match) encode(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 1, 0, 0) // OFPMT_OXM
	if m.InPort != 0 {
		b = field(b, oxmInPort, binary.BigEndian.AppendUint32(nil, m.InPort))
	}
	if m.EthDstMask == exact {
		b = field(b, oxmEthDst, m.EthDst[:])
	} else if m.EthDstMask != (MAC{}) {
		b = field(b, oxmEthDst, m.EthDst[:], m.EthDstMask[:]...)
	}
	if m.IPDst.IsValid() || m.IPSrc.IsValid() {
		src, dst, typ := uint32(oxmIPv4Src), uint32(oxmIPv4Dst), []byte{0x08, 0x00}
		if m.IPDst.Addr().Is6() || m.IPSrc.Addr().Is6() {
			src, dst, typ = oxmIPv6Src, oxmIPv6Dst, []byte{0x86, 0xdd}
		}
		b = within(within(field(b, oxmEthType, typ), src, m.IPSrc), dst, m.IPDst)
	}
	if m.TunSrc.Addr().Is4() {
		b = within(b, uint32(TunSrc), m.TunSrc)
	} else if m.TunSrc.IsValid() {
		b = within(b, nxmTun6Src, m.TunSrc)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return fill(b, start)
}

// within appends a field of an address; the zero Prefix is any.
func within(b []byte, f uint32, p netip.Prefix) []byte {
	switch {
	case !p.IsValid():
		return b
	case p.IsSingleIP():
		return field(b, f, p.Addr().AsSlice())
	}
	return field(b, f, p.Addr().AsSlice(), net.CIDRMask(p.Bits(), p.Addr().BitLen())...)
}

// fill appends zeros until the length from start on is a multiple of eight bytes.
func fill(b []byte, start int) []byte {
	for (len(b)-start)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// actions appends the instruction to apply the actions; without it frames are dropped.
func (f Flow) actions(b []byte) []byte {
	if f.Output == 0 {
		return b
	}
	start := len(b)
	b = append(b, 0, applyAction, 0, 0, 0, 0, 0, 0)
	if f.SetEthDst != (MAC{}) {
		b = set(b, oxmEthDst, f.SetEthDst[:])
	}
	if f.TunDst.Is4() {
		b = set(b, uint32(TunDst), f.TunDst.AsSlice())
	} else if f.TunDst.IsValid() {
		b = set(b, nxmTun6Dst, f.TunDst.AsSlice())
	}
	for _, m := range f.Moves {
		b = m.encode(b)
	}
	b = append(b, 0, outputType, 0, 16)
	b = binary.BigEndian.AppendUint32(b, f.Output)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

// encode appends the move as an action.
func (m Move) encode(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, vendorType)
	b = binary.BigEndian.AppendUint16(b, 24)
	b = binary.BigEndian.AppendUint32(b, nicira)
	b = binary.BigEndian.AppendUint16(b, nxRegMove)
	for _, n := range []int{m.NumBits, m.FromBit, m.ToBit} {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	for _, f := range []Field{m.From, m.To} {
		_, size := f.form()
		b = binary.BigEndian.AppendUint32(b, uint32(f)<<9|size)
	}
	return b
}

func set(b []byte, f uint32, value []byte) []byte {
	start := len(b)
	b = field(append(b, 0, setField, 0, 0), f, value)
	b = fill(b, start)
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}
