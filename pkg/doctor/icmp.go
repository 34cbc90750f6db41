package doctor

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// An echo is an echo request, and whether it was answered.
type echo struct {
	to netip.Addr
	// from is the source address, by which policy rules may choose the way; the
	// zero Addr leaves it to the kernel.
	from netip.Addr
	// size is that of the whole IP packet, which is never fragmented; 0 is any.
	size     int
	answered bool
}

// What an echo request is made of: RFC 792, RFC 4443.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	icmpHeader               = 8
	ipHeader4, ipHeader6     = 20, 40
	// A cookie tells our packets from others'; the number of the echo follows it.
	cookieSize = 8
	leastSize  = icmpHeader + cookieSize + 4
)

// tries is how often an echo is sent, pause how long an answer may take.
const (
	tries = 3
	pause = 700 * time.Millisecond
)

// ping sends the echo requests, again where no answer comes, and fills in
// which were answered. It takes at most tries × pause.
func ping(ctx context.Context, list []echo) error {
	for _, v6 := range []bool{false, true} {
		var of []*echo
		for i := range list {
			if list[i].to.Is6() == v6 {
				of = append(of, &list[i])
			}
		}
		if len(of) == 0 {
			continue
		}
		if err := pingFamily(ctx, v6, of); err != nil {
			return fmt.Errorf("ping: %w", err)
		}
	}
	return nil
}

func pingFamily(ctx context.Context, v6 bool, list []*echo) error {
	fd, err := icmpSocket(v6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	cookie := make([]byte, cookieSize)
	_, _ = rand.Read(cookie) // never fails
	for range tries {
		for i, e := range list {
			if !e.answered {
				// What cannot be sent, for want of a route or because it is too
				// large, is not answered.
				_, _ = unix.SendmsgN(fd, echoRequest(v6, cookie, i, e.size), source(e.from), sockaddr(e.to), 0)
			}
		}
		left := listen(ctx, fd, v6, cookie, list)
		if left == 0 || ctx.Err() != nil {
			break
		}
	}
	return nil
}

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
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
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
	if !v6 { // for ICMPv6 the kernel does it
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// checksum is the Internet checksum (RFC 1071).
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

// source is the control message that names the source address of a packet; nil
// is none.
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

// listen takes answers until all are there or a pause is over, and returns how
// many are missing.
func listen(ctx context.Context, fd int, v6 bool, cookie []byte, list []*echo) (left int) {
	for _, e := range list {
		if !e.answered {
			left++
		}
	}
	b := make([]byte, 64<<10)
	for end := time.Now().Add(pause); left > 0 && ctx.Err() == nil; {
		wait := time.Until(end)
		if wait <= 0 {
			break
		}
		tv := unix.NsecToTimeval(min(wait, 50*time.Millisecond).Nanoseconds())
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			continue
		}
		if i := echoReply(b[:n], v6, cookie); i >= 0 && i < len(list) && !list[i].answered {
			list[i].answered = true
			left--
		}
	}
	return left
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
