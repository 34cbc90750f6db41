// Package icmp sends ICMP echo requests and receives the replies. pkg/ping and
// pkg/probe use it.
//
// There are two kinds of sockets. A datagram socket receives only the replies to its own
// requests, and needs a group of this process in the sysctl net.ipv4.ping_group_range. A
// raw socket receives all replies, and needs CAP_NET_RAW.
package icmp

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What an echo request is made of: RFC 792, RFC 4443.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	header                   = 8
	ipHeader4, ipHeader6     = 20, 40
	// A cookie tells the packets of this socket from others'; the number of the
	// echo request follows it.
	cookieSize = 8
	leastSize  = header + cookieSize + 12
)

// A Socket sends echo requests of one IP family. Send and Receive may be called at
// the same time, each by one goroutine.
type Socket struct {
	file *os.File
	conn syscall.RawConn
	// raw: it is a raw socket, which receives all echo replies of this host.
	raw, v6 bool
	cookie  [cookieSize]byte
	buf     [64 << 10]byte
}

// Open makes a socket in the network namespace of the calling thread. from is the source
// address of all its requests. With the zero Addr each Request has its own; Open then
// prefers a raw socket, because datagram sockets cannot set it over IPv6 before Linux
// 5.18. The error wraps os.ErrPermission where neither kind is allowed.
func Open(v6 bool, from netip.Addr) (*Socket, error) {
	s := &Socket{v6: v6}
	_, _ = rand.Read(s.cookie[:]) // never fails
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	kinds := []int{unix.SOCK_RAW, unix.SOCK_DGRAM}
	if from.IsValid() {
		slices.Reverse(kinds)
	}
	var fd int
	var err error
	for _, kind := range kinds {
		s.raw = kind == unix.SOCK_RAW
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		if !errors.Is(err, os.ErrPermission) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ICMP socket: %w", err)
	}
	s.file = os.NewFile(uintptr(fd), "icmp")
	if err = s.setUp(fd, from); err == nil {
		s.conn, err = s.file.SyscallConn()
	}
	if err != nil {
		s.file.Close()
		return nil, fmt.Errorf("ICMP socket: %w", err)
	}
	return s, nil
}

// setUp enlarges the buffers for replies of many hosts at once, lets packets be larger
// than the path MTU that the kernel has learned, filters out all but echo replies, and
// binds the socket to from.
func (s *Socket) setUp(fd int, from netip.Addr) error {
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 4<<20) // as much as may be had
	}
	level, discover := unix.SOL_IP, unix.IP_MTU_DISCOVER
	if s.v6 {
		level, discover = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER
	}
	if err := unix.SetsockoptInt(fd, level, discover, unix.IP_PMTUDISC_PROBE); err != nil {
		return err
	}
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
	if !from.IsValid() {
		return nil
	}
	if err := unix.Bind(fd, sockaddr(from)); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// Close closes the socket. A Receive that waits returns os.ErrClosed.
func (s *Socket) Close() { s.file.Close() }

// A Request is one echo request.
type Request struct {
	To netip.Addr
	// From is the source address; the zero Addr leaves it to the socket, and the
	// kernel.
	From netip.Addr
	// Number identifies the request: Receive returns that of a reply.
	Number uint64
	// Size is that of the whole IP packet in bytes; 0 is the least. This host does not
	// fragment it.
	Size int
}

// Send sends an echo request. The error is the kernel's errno, such as ENETUNREACH where
// there is no route and EMSGSIZE where the packet is larger than the link's MTU.
func (s *Socket) Send(r Request) error {
	b := s.packet(r.Number, r.Size)
	var failed error
	err := s.conn.Write(func(fd uintptr) bool {
		_, failed = unix.SendmsgN(int(fd), b, source(r.From), sockaddr(r.To), 0)
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}

func (s *Socket) packet(number uint64, size int) []byte {
	typ, ip := byte(echoRequest4), ipHeader4
	if s.v6 {
		typ, ip = echoRequest6, ipHeader6
	}
	b := make([]byte, max(size-ip, leastSize))
	b[0] = typ
	copy(b[header:], s.cookie[:])
	binary.BigEndian.PutUint64(b[header+cookieSize:], number)
	if s.raw && !s.v6 { // in all other cases the kernel computes it
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// Receive waits for a reply to one of this socket's requests and returns the request's
// Number. The zero Time is no deadline. The error is os.ErrDeadlineExceeded at the
// deadline and os.ErrClosed after Close.
func (s *Socket) Receive(deadline time.Time) (number uint64, err error) {
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return 0, os.ErrClosed
	}
	for {
		var n int
		var failed error
		err := s.conn.Read(func(fd uintptr) bool {
			n, _, failed = unix.Recvfrom(int(fd), s.buf[:], 0)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		} else if err != nil { // a raw connection has another error for that
			return 0, os.ErrClosed
		}
		if failed != nil {
			continue // the error of a request, which is lost: nobody waits for its answer
		}
		if number, ok := s.parse(s.buf[:n]); ok {
			return number, nil
		}
	}
}

// parse reads a reply. Over IPv4, a raw socket returns the IP header, too.
func (s *Socket) parse(b []byte) (number uint64, ok bool) {
	reply := byte(echoReply6)
	if !s.v6 {
		reply = echoReply4
		if s.raw {
			if len(b) == 0 || len(b) < int(b[0]&15)*4 {
				return 0, false
			}
			b = b[int(b[0]&15)*4:]
		}
	}
	if len(b) < leastSize || b[0] != reply || string(b[header:header+cookieSize]) != string(s.cookie[:]) {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[header+cookieSize:]), true
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

// source is the control message that sets the source address of a packet; nil for
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
