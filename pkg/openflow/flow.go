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

// ParseMAC is net.ParseMAC for six bytes; of anything else it is the zero MAC.
func ParseMAC(s string) (m MAC) {
	if hw, err := net.ParseMAC(s); err == nil && len(hw) == len(m) {
		copy(m[:], hw)
	}
	return m
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// A Match says which frames a flow is for. Its zero value matches all.
type Match struct {
	// InPort is the port that they come by; 0 is any.
	InPort uint32
	// EthDst is their destination where EthDstMask has ones; the zero mask is
	// any destination.
	EthDst, EthDstMask MAC
	// IPDst holds the destination of their IP packets; the zero Prefix is any.
	IPDst netip.Prefix
	// TunSrc is the outer source address of the tunnel that they came by; the
	// zero Addr is any, and none.
	TunSrc netip.Addr
}

// A Flow is an entry of table 0. Its actions are done in the order of the
// fields. Two flows of equal Priority and Match are the same flow.
type Flow struct {
	// Priority is the higher the earlier the flow is looked at.
	Priority uint16
	Match
	// SetEthDst becomes the destination; the zero MAC leaves it.
	SetEthDst MAC
	// TunDst becomes the outer destination of a tunnel with remote_ip=flow; the
	// zero Addr leaves it.
	TunDst netip.Addr
	// TunDstFromEth makes the last four bytes of the Ethernet destination the
	// outer destination, which is IPv4.
	TunDstFromEth bool
	// Output is the port that the frames leave by; 0 drops them.
	Output uint32
}

// exact is the mask of a whole Ethernet address.
var exact = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ToMAC matches one Ethernet destination.
func ToMAC(m MAC) Match { return Match{EthDst: m, EthDstMask: exact} }

// String is the flow as ovs-ofctl(8) has it, without cookie.
func (f Flow) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "priority=%d", f.Priority)
	if f.InPort != 0 {
		b.WriteString(",in_port=" + port(f.InPort))
	}
	if f.TunSrc.Is4() {
		b.WriteString(",tun_src=" + f.TunSrc.String())
	} else if f.TunSrc.IsValid() {
		b.WriteString(",tun_ipv6_src=" + f.TunSrc.String())
	}
	if f.EthDstMask == exact {
		b.WriteString(",dl_dst=" + f.EthDst.String())
	} else if f.EthDstMask != (MAC{}) {
		b.WriteString(",dl_dst=" + f.EthDst.String() + "/" + f.EthDstMask.String())
	}
	if f.IPDst.Addr().Is4() {
		b.WriteString(",ip,nw_dst=" + f.IPDst.String())
	} else if f.IPDst.IsValid() {
		b.WriteString(",ipv6,ipv6_dst=" + f.IPDst.String())
	}
	return b.String() + " actions=" + f.actionText()
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
	if f.TunDstFromEth {
		list = append(list, "move:NXM_OF_ETH_DST[0..31]->NXM_NX_TUN_IPV4_DST[]")
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
// (OFPXMT_OFB_*, NXM_NX_TUN_*, NXM_OF_ETH_DST).
const (
	oxmInPort   = 0x8000 << 7 // field 0
	oxmEthDst   = 0x8000<<7 | 3
	oxmEthType  = 0x8000<<7 | 5
	oxmIPv4Dst  = 0x8000<<7 | 12
	oxmIPv6Dst  = 0x8000<<7 | 27
	nxmEthDst   = 0x0000<<7 | 1
	nxmTun4Src  = 0x0001<<7 | 31
	nxmTun4Dst  = 0x0001<<7 | 32
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

// encode appends the match with its header, filled to a multiple of eight bytes.
// Fields come in an order in which each is allowed by those before it.
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
	if m.IPDst.IsValid() {
		of, typ := uint32(oxmIPv4Dst), []byte{0x08, 0x00}
		if m.IPDst.Addr().Is6() {
			of, typ = oxmIPv6Dst, []byte{0x86, 0xdd}
		}
		b = field(field(b, oxmEthType, typ), of, m.IPDst.Addr().AsSlice(), prefixMask(m.IPDst)...)
	}
	if m.TunSrc.Is4() {
		b = field(b, nxmTun4Src, m.TunSrc.AsSlice())
	} else if m.TunSrc.IsValid() {
		b = field(b, nxmTun6Src, m.TunSrc.AsSlice())
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return fill(b, start)
}

func prefixMask(p netip.Prefix) []byte { return net.CIDRMask(p.Bits(), p.Addr().BitLen()) }

// fill appends zeros until what begins at start has a multiple of eight bytes.
func fill(b []byte, start int) []byte {
	for (len(b)-start)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// actions appends the instruction to apply the actions; none drops.
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
		b = set(b, nxmTun4Dst, f.TunDst.AsSlice())
	} else if f.TunDst.IsValid() {
		b = set(b, nxmTun6Dst, f.TunDst.AsSlice())
	}
	if f.TunDstFromEth {
		b = binary.BigEndian.AppendUint16(b, vendorType)
		b = binary.BigEndian.AppendUint16(b, 24)
		b = binary.BigEndian.AppendUint32(b, nicira)
		b = binary.BigEndian.AppendUint16(b, nxRegMove)
		b = append(b, 0, 32, 0, 0, 0, 0) // bits, and where they begin
		b = binary.BigEndian.AppendUint32(b, nxmEthDst<<9|6)
		b = binary.BigEndian.AppendUint32(b, nxmTun4Dst<<9|4)
	}
	b = append(b, 0, outputType, 0, 16)
	b = binary.BigEndian.AppendUint32(b, f.Output)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

func set(b []byte, f uint32, value []byte) []byte {
	start := len(b)
	b = field(append(b, 0, setField, 0, 0), f, value)
	b = fill(b, start)
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}
