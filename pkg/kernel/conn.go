package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// One send carries at most so many messages and bytes. More does not get
	// faster, and the errors of all of them must fit the receive buffer; the
	// kernel refuses a send larger than SO_SNDBUF, 208 KiB by default.
	chunkMessages, chunkBytes = 512, 64 << 10
	// An error costs the receive buffer less than 1 KiB (skb truesize).
	receiveBuffer = 2 << 20
	// The kernel fills at most 32 KiB a message of a dump (netlink_dump).
	readBuffer = 32 << 10
	// A dump that the kernel calls inconsistent is asked for again.
	dumpTries = 20
)

// conn is a connection to rtnetlink, in the network namespace it was made in.
// It is not for concurrent use.
type conn struct {
	fd      int
	seq     uint32
	timeout time.Duration
	in, out []byte

	// What remember keeps; nil without.
	indexes map[string]int
	names   map[int]string
}

// dial opens a connection in the network namespace of this thread.
func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: socket: %w", err)
	}
	// Each of these is a help that the oldest kernels do not give: answers are
	// filtered here too, and errors then come without words.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	return &conn{fd: fd}, nil
}

func (c *conn) close() { _ = unix.Close(c.fd) }

// An answer is what the kernel says to one request: the payload of the message
// it was asked for, or an error, or neither where it was told to do something.
type answer struct {
	body []byte
	err  error
}

// exchange sends requests, many at a time, and returns the answer to each.
// They are carried out in their order, and those after an error too.
func (c *conn) exchange(ctx context.Context, reqs ...message) []answer {
	answers := make([]answer, len(reqs))
	for at := 0; at < len(reqs); {
		n := chunk(reqs[at:])
		if err := c.round(ctx, reqs[at:at+n], answers[at:at+n]); err != nil {
			for i := range answers[at:] {
				answers[at+i] = answer{err: err}
			}
			break
		}
		at += n
	}
	return answers
}

// one is exchange for a single request.
func (c *conn) one(ctx context.Context, req message) ([]byte, error) {
	a := c.exchange(ctx, req)[0]
	return a.body, a.err
}

// chunk returns how many of reqs go into one send.
func chunk(reqs []message) int {
	bytes := 0
	for i, m := range reqs {
		bytes += align4(len(m))
		if i == chunkMessages || i > 0 && bytes > chunkBytes {
			return i
		}
	}
	return len(reqs)
}

// round sends one chunk. The kernel works through it in order, so the answer
// to the last message ends it; what fails before that says so unasked.
func (c *conn) round(ctx context.Context, reqs []message, answers []answer) error {
	if last := reqs[len(reqs)-1]; !last.isGet() {
		last.addFlags(unix.NLM_F_ACK)
	}
	base := c.seq + 1
	if err := c.send(ctx, reqs); err != nil {
		return err
	}
	for done := false; !done; {
		err := c.receive(func(h unix.NlMsghdr, body []byte) {
			i := h.Seq - base
			if i >= uint32(len(reqs)) {
				return // of an exchange that was given up
			}
			if h.Type == unix.NLMSG_ERROR {
				answers[i].err = ackError(h, body)
			} else {
				answers[i].body = append([]byte(nil), body...)
			}
			done = done || int(i) == len(reqs)-1
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dump asks for a list and returns the payloads of its messages. When the list
// changed under the kernel's hands it asks again.
func (c *conn) dump(ctx context.Context, req message) ([][]byte, error) {
	req.addFlags(unix.NLM_F_DUMP)
	for range dumpTries {
		bodies, interrupted, err := c.dumpOnce(ctx, req)
		if err != nil || !interrupted {
			return bodies, err
		}
	}
	return nil, fmt.Errorf("netlink: the list changed during each of %d attempts to read it: %w", dumpTries, unix.EINTR)
}

func (c *conn) dumpOnce(ctx context.Context, req message) (bodies [][]byte, interrupted bool, err error) {
	if err := c.send(ctx, []message{req}); err != nil {
		return nil, false, err
	}
	var failed error
	for done := false; !done; {
		err := c.receive(func(h unix.NlMsghdr, body []byte) {
			if h.Seq != c.seq {
				return
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch h.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				// Both begin with an errno, a done of an old kernel may be empty.
				failed, done = ackError(h, body), true
			default:
				bodies = append(bodies, append([]byte(nil), body...))
			}
		})
		if err != nil {
			return nil, false, err
		}
	}
	return bodies, interrupted, failed
}

func (c *conn) send(ctx context.Context, reqs []message) error {
	if err := c.deadline(ctx); err != nil {
		return err
	}
	c.out = c.out[:0]
	for _, m := range reqs {
		c.seq++
		ne.PutUint32(m[0:], uint32(len(m)))
		ne.PutUint32(m[8:], c.seq)
		c.out = append(c.out, m...) // attributes are padded, so m is aligned
	}
	for {
		err := unix.Sendto(c.fd, c.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("netlink: send: %w", err)
		}
	}
}

// deadline bounds waiting for the kernel by ctx. It answers before a send
// returns, so that the bound is for surprises.
func (c *conn) deadline(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var timeout time.Duration // none
	if t, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(t), time.Millisecond)
	}
	if timeout == c.timeout {
		return nil
	}
	c.timeout = timeout
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// receive reads one datagram and calls f for each message in it. Bodies are
// good until f returns.
func (c *conn) receive(f func(h unix.NlMsghdr, body []byte)) error {
	if c.in == nil {
		c.in = make([]byte, readBuffer)
	}
	n, from, err := unix.Recvfrom(c.fd, c.in, unix.MSG_TRUNC)
	switch {
	case err == unix.EINTR:
		return nil
	case err == unix.EAGAIN:
		return fmt.Errorf("netlink: no answer: %w", context.DeadlineExceeded)
	case err != nil:
		return fmt.Errorf("netlink: receive: %w", err)
	case n > len(c.in):
		return fmt.Errorf("netlink: an answer of %d bytes is longer than the %d that fit", n, len(c.in))
	}
	if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
		return nil // not from the kernel
	}
	for b := c.in[:n]; len(b) >= unix.NLMSG_HDRLEN; {
		h := unix.NlMsghdr{Len: ne.Uint32(b), Type: ne.Uint16(b[4:]), Flags: ne.Uint16(b[6:]), Seq: ne.Uint32(b[8:])}
		if h.Len < unix.NLMSG_HDRLEN || int(h.Len) > len(b) {
			return fmt.Errorf("netlink: a message of %d bytes in %d", h.Len, len(b))
		}
		f(h, b[unix.NLMSG_HDRLEN:h.Len])
		b = b[min(align4(int(h.Len)), len(b)):]
	}
	return nil
}

// kernelError is an errno with what the kernel says besides.
type kernelError struct {
	errno unix.Errno
	text  string
}

func (e *kernelError) Error() string {
	if e.text == "" {
		return e.errno.Error()
	}
	return fmt.Sprintf("%s (%s)", e.errno.Error(), e.text)
}

func (e *kernelError) Unwrap() error { return e.errno }

// ackError reads a message of type NLMSG_ERROR; it is nil for an
// acknowledgement.
func ackError(h unix.NlMsghdr, body []byte) error {
	if len(body) < 4 {
		return nil
	}
	errno := -int32(ne.Uint32(body))
	if errno == 0 {
		return nil
	}
	e := &kernelError{errno: unix.Errno(errno)}
	if h.Flags&unix.NLM_F_ACK_TLVS == 0 {
		return e
	}
	tlvs := body[4:]
	if h.Type == unix.NLMSG_ERROR {
		// The request's header follows, and the request itself unless capped.
		skip := 4 + unix.NLMSG_HDRLEN
		if len(body) >= skip && h.Flags&unix.NLM_F_CAPPED == 0 {
			skip = 4 + align4(int(ne.Uint32(body[4:])))
		}
		tlvs = body[min(skip, len(body)):]
	}
	for typ, v := range attrs(tlvs) {
		if typ == unix.NLMSGERR_ATTR_MSG {
			e.text = getText(v)
		}
	}
	return e
}

// noLink is the error about a link that does not exist. It wraps
// fs.ErrNotExist.
type noLink string

func (n noLink) Error() string        { return fmt.Sprintf("link %s: no such link", string(n)) }
func (n noLink) Is(target error) bool { return target == fs.ErrNotExist }

// linkIndex asks the namespace of any socket for the index of a link. It costs
// less than a message. The error is a noLink where there is none.
func linkIndex(fd int, name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, noLink(name) // too long to be the name of any
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	if errors.Is(err, unix.ENODEV) {
		return 0, noLink(name)
	}
	if err != nil {
		return 0, fmt.Errorf("link %s: index: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}

// remember asks for each index and name only once: for a connection that ends
// before a link can come or go unnoticed.
func (c *conn) remember() { c.indexes, c.names = map[string]int{}, map[int]string{} }

func (c *conn) index(name string) (int, error) {
	if i, ok := c.indexes[name]; ok {
		return i, nil
	}
	i, err := linkIndex(c.fd, name)
	if err == nil && c.indexes != nil {
		c.indexes[name] = i
	}
	return i, err
}

// eachLink calls f for each of the links, once, in order; one that is not there
// has nothing.
func (c *conn) eachLink(names []string, f func(name string, index int) error) error {
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		index, err := c.index(name)
		if errors.As(err, new(noLink)) {
			continue
		}
		if err == nil {
			err = f(name, index)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// name is the name of a link; "" where there is none.
func (c *conn) name(index int) string {
	if name, ok := c.names[index]; ok || index == 0 {
		return name
	}
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return ""
	}
	ifr.SetUint32(uint32(index))
	if unix.IoctlIfreq(c.fd, unix.SIOCGIFNAME, ifr) != nil {
		return ""
	}
	if c.names != nil {
		c.names[index] = ifr.Name()
	}
	return ifr.Name()
}
