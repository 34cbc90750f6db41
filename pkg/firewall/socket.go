package firewall

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A socket is a netlink socket to ask nf_tables questions. It blocks its
// thread: the kernel answers before send returns, so there is nothing to wait
// for, and CHECK asks some twenty questions. mdlayher/netlink starts a
// goroutine for each send and receive: Observe of one masquerade took 1.4 ms
// with it and takes 0.15 ms without.
type socket struct {
	fd    int
	seq   uint32
	buf   []byte
	until time.Time
}

// message is an answer without its netlink header: struct nfgenmsg, the first
// byte of which is the family, and attributes.
type message []byte

func dial(until time.Time) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	timeout := unix.NsecToTimeval(max(time.Until(until), time.Microsecond).Nanoseconds())
	err = errors.Join(unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	// A dump comes in pieces of at most 32 KiB (netlink_recvmsg in net/netlink/af_netlink.c).
	return &socket{fd: fd, buf: make([]byte, 1<<16), until: until}, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// errLarge: the answer is longer than anybody wants to read.
var errLarge = errors.New("nf_tables: a long answer")

// again forgets an answer that was not read to its end.
func (s *socket) again() error {
	s.close()
	n, err := dial(s.until)
	if err != nil {
		s.fd = -1
		return err
	}
	s.fd = n.fd
	return nil
}

// ask sends a question of nf_tables and returns the answers. What the kernel
// refuses is its errno. Of an answer of more than limit bytes, where that is
// not 0, come the first, with errLarge.
func (s *socket) ask(limit int, typ, flags uint16, family byte, attrs ...[]byte) ([]message, error) {
	s.seq++
	req := make([]byte, unix.NLMSG_HDRLEN, 256)
	req = append(req, family, unix.NFNETLINK_V0, 0, 0)
	req = append(req, bytes.Join(attrs, nil)...)
	binary.NativeEndian.PutUint32(req[0:], uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], unix.NFNL_SUBSYS_NFTABLES<<8|typ)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(req[8:], s.seq)
	if err := unix.Sendto(s.fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	var msgs []message
	for total := 0; ; {
		n, _, err := unix.Recvfrom(s.fd, s.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, fmt.Errorf("nf_tables: no answer: %w", os.ErrDeadlineExceeded)
		case err != nil:
			return nil, os.NewSyscallError("recvfrom", err)
		case n > len(s.buf):
			return nil, fmt.Errorf("nf_tables: an answer of %d bytes", n)
		}
		more, err := s.parse(slices.Clone(s.buf[:n]), &msgs)
		if err != nil || !more {
			return msgs, err
		}
		if total += n; limit > 0 && total > limit {
			return msgs, errors.Join(errLarge, s.again())
		}
	}
}

// parse takes the messages of one datagram and reports whether there are more
// to come (struct nlmsghdr in linux/netlink.h).
func (s *socket) parse(b []byte, msgs *[]message) (more bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		n := int(binary.NativeEndian.Uint32(b))
		typ, flags, seq := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:])
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			return false, fmt.Errorf("nf_tables: an answer cut off after %d bytes", len(b))
		}
		data := b[unix.NLMSG_HDRLEN:n:n]
		b = b[min((n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
		if seq != s.seq {
			continue
		}
		switch typ {
		case unix.NLMSG_ERROR, unix.NLMSG_DONE:
			// Either begins with an errno, negative or 0.
			if len(data) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(data)); errno > 0 {
					return false, unix.Errno(errno)
				}
			}
			return false, nil
		}
		*msgs = append(*msgs, data)
		more = flags&unix.NLM_F_MULTI != 0
		if !more {
			return false, nil
		}
	}
	return true, nil
}

// str is an attribute that is a string (struct nlattr in linux/netlink.h).
func str(typ uint16, s string) []byte {
	n := unix.NLA_HDRLEN + len(s) + 1
	b := make([]byte, (n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1))
	binary.NativeEndian.PutUint16(b, uint16(n))
	binary.NativeEndian.PutUint16(b[2:], typ)
	copy(b[unix.NLA_HDRLEN:], s)
	return b
}
