package probe

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// What an echo request is made of: RFC 792, RFC 4443.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	icmpHeader               = 8
	// A cookie tells the packets of this socket from others'; the number of the
	// echo follows it.
	cookieSize = 8
	packetSize = icmpHeader + cookieSize + 12
)

// A socket sends echo requests from one address.
type socket struct {
	conn net.PacketConn
	// raw: the socket sees all packets of ICMP, of IPv4 with their IP headers.
	raw, v6 bool
	cookie  [cookieSize]byte
}

// open binds a socket to an address of this host. The error wraps os.ErrPermission
// where neither kind of socket is allowed.
func open(from netip.Addr) (*socket, error) {
	s := &socket{v6: from.Is6()}
	_, _ = rand.Read(s.cookie[:]) // never fails
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if s.v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|flags, proto)
	if errors.Is(err, os.ErrPermission) {
		s.raw = true
		fd, err = unix.Socket(family, unix.SOCK_RAW|flags, proto)
	}
	if err != nil {
		return nil, fmt.Errorf("ICMP socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "icmp")
	defer f.Close()
	if err := s.setUp(fd, from); err != nil {
		return nil, fmt.Errorf("ICMP socket of %s: %w", from, err)
	}
	if s.conn, err = net.FilePacketConn(f); err != nil {
		return nil, fmt.Errorf("ICMP socket: %w", err)
	}
	return s, nil
}

// setUp binds the socket and bars what it need not see.
func (s *socket) setUp(fd int, from netip.Addr) error {
	var at unix.Sockaddr
	if s.v6 {
		at = &unix.SockaddrInet6{Addr: from.As16()}
	} else {
		at = &unix.SockaddrInet4{Addr: from.As4()}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	switch {
	case s.raw && s.v6:
		var bar unix.ICMPv6Filter
		for i := range bar.Data {
			bar.Data[i] = ^uint32(0)
		}
		bar.Data[echoReply6>>5] &^= 1 << (echoReply6 & 31)
		_ = unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &bar)
	case s.raw:
		const icmpFilter = 1 // linux/icmp.h; a bit for each type that is barred
		_ = unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << echoReply4))
	}
	return unix.Bind(fd, at)
}

func (s *socket) close() { _ = s.conn.Close() }

// send sends one echo request with a number of the caller's choice.
func (s *socket) send(to netip.Addr, number uint64) error {
	b := make([]byte, packetSize)
	b[0] = echoRequest4
	if s.v6 {
		b[0] = echoRequest6
	}
	copy(b[icmpHeader:], s.cookie[:])
	binary.BigEndian.PutUint64(b[icmpHeader+cookieSize:], number)
	if s.raw && !s.v6 { // in all other cases the kernel does it
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	var at net.Addr = &net.UDPAddr{IP: to.AsSlice()}
	if s.raw {
		at = &net.IPAddr{IP: to.AsSlice()}
	}
	_, err := s.conn.WriteTo(b, at)
	return err
}

// receive waits for an answer to this socket's requests and returns its number.
// The error wraps os.ErrDeadlineExceeded at the deadline and net.ErrClosed after close.
func (s *socket) receive(deadline time.Time) (number uint64, err error) {
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	b := make([]byte, 1500)
	for {
		n, _, err := s.conn.ReadFrom(b)
		if err != nil {
			return 0, err
		}
		if number, ok := s.parse(b[:n]); ok {
			return number, nil
		}
	}
}

// parse reads an answer. net.IPConn strips the IP header of IPv4, if there is one.
func (s *socket) parse(b []byte) (number uint64, ok bool) {
	reply := byte(echoReply4)
	if s.v6 {
		reply = echoReply6
	}
	if len(b) < packetSize || b[0] != reply || string(b[icmpHeader:icmpHeader+cookieSize]) != string(s.cookie[:]) {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[icmpHeader+cookieSize:]), true
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
