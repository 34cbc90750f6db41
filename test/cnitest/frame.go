package cnitest

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
)

// Broadcast is the MAC address of everybody.
const Broadcast = "ff:ff:ff:ff:ff:ff"

// A Tag is a VLAN tag; TPID is 0x8100 or 0x88a8.
type Tag struct{ TPID, VLAN uint16 }

// The EtherTypes of what the builders below make.
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeIPv6 = 0x86dd
)

// Frame is an Ethernet frame in hexadecimal, as Program takes it.
func Frame(dst, src string, etherType uint16, payload []byte, tags ...Tag) string {
	b := append(hardware(dst), hardware(src)...)
	for _, t := range tags {
		b = binary.BigEndian.AppendUint16(b, t.TPID)
		b = binary.BigEndian.AppendUint16(b, t.VLAN)
	}
	b = append(binary.BigEndian.AppendUint16(b, etherType), payload...)
	if short := 60 - len(b); short > 0 {
		b = append(b, make([]byte, short)...)
	}
	return hex.EncodeToString(b)
}

// hardware reads a MAC address; a test that has none is wrong.
func hardware(s string) []byte {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return append([]byte{}, m...)
}

// ARP is a request (1) or a reply (2) by a sender about a target, whose MAC
// address is left out.
func ARP(op uint16, senderMAC string, sender, target netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, hardware(senderMAC)...), sender.AsSlice()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), target.AsSlice()...)
}

// UDP is a packet of either family, with its checksums.
func UDP(src, dst netip.Addr, port uint16, data string) []byte {
	b := binary.BigEndian.AppendUint16(nil, port)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	b = append(append(b, 0, 0), data...)
	return packet(src, dst, 17, 64, 6, b)
}

// ICMPv6 is a message of a type, from its fifth byte on, with the hop limit that
// neighbour discovery wants.
func ICMPv6(src, dst netip.Addr, typ byte, body ...byte) []byte {
	return packet(src, dst, 58, 255, 2, append([]byte{typ, 0, 0, 0}, body...))
}

// RouterAdvertisement is a default router's, with a prefix to make addresses of
// and its MAC address. A lifetime of 0 is a router that leaves. Seconds.
func RouterAdvertisement(src netip.Addr, mac string, lifetime uint16, prefix netip.Prefix) []byte {
	b := []byte{64, 0}
	b = binary.BigEndian.AppendUint16(b, lifetime)
	b = append(b, make([]byte, 8)...)              // reachable time, retransmission
	b = append(b, 3, 4, byte(prefix.Bits()), 0xc0) // on-link, autonomous
	b = binary.BigEndian.AppendUint32(b, 3600)     // valid
	b = binary.BigEndian.AppendUint32(b, 3600)     // preferred
	b = append(append(b, 0, 0, 0, 0), prefix.Addr().AsSlice()...)
	b = append(append(b, 1, 1), hardware(mac)...)
	return ICMPv6(src, netip.MustParseAddr("ff02::1"), 134, b...)
}

// NeighbourAdvertisement says unasked that target is at mac, whatever was known.
func NeighbourAdvertisement(src, target netip.Addr, mac string) []byte {
	b := append([]byte{0x20, 0, 0, 0}, target.AsSlice()...)
	return ICMPv6(src, netip.MustParseAddr("ff02::1"), 136, append(append(b, 2, 1), hardware(mac)...)...)
}

// NeighbourSolicitation asks for target, and says that src is at mac.
func NeighbourSolicitation(src, target netip.Addr, mac string) []byte {
	b := append([]byte{0, 0, 0, 0}, target.AsSlice()...)
	return ICMPv6(src, target, 135, append(append(b, 1, 1), hardware(mac)...)...)
}

// packet puts an IP header before a payload whose checksum is at offset sum.
func packet(src, dst netip.Addr, proto, hops byte, sum int, payload []byte) []byte {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(payload)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(proto))
	binary.BigEndian.PutUint16(payload[sum:], checksum(append(pseudo, payload...)))
	if src.Is6() {
		b := []byte{0x60, 0, 0, 0}
		b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
		b = append(b, proto, hops)
		return append(append(append(b, src.AsSlice()...), dst.AsSlice()...), payload...)
	}
	return IPv4(src, dst, proto, payload, hops)
}

// IPv4 is a packet of a protocol, of 64 hops unless said.
func IPv4(src, dst netip.Addr, proto byte, payload []byte, hops ...byte) []byte {
	ttl := byte(64)
	if len(hops) > 0 {
		ttl = hops[0]
	}
	b := []byte{0x45, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(payload)))
	b = append(b, 0, 0, 0, 0, ttl, proto, 0, 0)
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

// checksum is the Internet's (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
