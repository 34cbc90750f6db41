package ping

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// What an echo request is made of: RFC 792, RFC 4443.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	icmpHeader               = 8
	ipHeader4, ipHeader6     = 20, 40
	// The payload begins with a random cookie, by which replies to this process are
	// recognized, and the index of the echo.
	cookieSize = 8
	leastSize  = icmpHeader + cookieSize + 4
)

// icmpSocket sends packets as they are, without regard to what the kernel has
// learned of the path's MTU.
func icmpSocket(v6 bool) (int, error) {
	family, proto, level, discover := unix.AF_INET, unix.IPPROTO_ICMP, unix.SOL_IP, unix.IP_MTU_DISCOVER
	if v6 {
		family, proto, level, discover = unix.AF_INET6, unix.IPPROTO_ICMPV6, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, err
	}
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 4<<20)
	}
	if err := unix.SetsockoptInt(fd, level, discover, unix.IP_PMTUDISC_PROBE); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func echoRequest(v6 bool, cookie []byte, number, size int) []byte {
	typ, ip := byte(echoRequest4), ipHeader4
	if v6 {
		typ, ip = echoRequest6, ipHeader6
	}
	b := make([]byte, max(size-ip, leastSize))
	b[0] = typ
	copy(b[icmpHeader:], cookie)
	binary.BigEndian.PutUint32(b[icmpHeader+cookieSize:], uint32(number))
	if !v6 { // the kernel computes that of ICMPv6
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// checksum returns the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// source returns the control message that sets the source address of a packet; nil for
// the zero Addr.
func source(a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return nil
	case a.Is6():
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
	}
	return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is6() {
		return &unix.SockaddrInet6{Addr: a.As16()}
	}
	return &unix.SockaddrInet4{Addr: a.As4()}
}

// echoReply returns the number of the echo that a packet answers, or -1. IPv4
// comes with its header, IPv6 without.
func echoReply(b []byte, v6 bool, cookie []byte) int {
	typ := byte(echoReply6)
	if !v6 {
		typ = echoReply4
		if len(b) == 0 || len(b) < int(b[0]&15)*4 {
			return -1
		}
		b = b[int(b[0]&15)*4:]
	}
	if len(b) < leastSize || b[0] != typ || string(b[icmpHeader:icmpHeader+cookieSize]) != string(cookie) {
		return -1
	}
	return int(binary.BigEndian.Uint32(b[icmpHeader+cookieSize:]))
}
