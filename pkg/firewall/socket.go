package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A socket is for requests to nf_tables. It is kept open: without it, the library opens
// one for each request.
type socket struct {
	handle *nl.SocketHandle
	until  time.Time
}

func dial(until time.Time) (*socket, error) {
	s := &socket{until: until}
	return s, s.open()
}

func (s *socket) open() error {
	k, err := nl.Subscribe(unix.NETLINK_NETFILTER) // to nothing
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	timeout := unix.NsecToTimeval(max(time.Until(s.until), time.Microsecond).Nanoseconds())
	s.handle = &nl.SocketHandle{Socket: k}
	return k.SetReceiveTimeout(&timeout)
}

func (s *socket) close() { s.handle.Close() }

// errLarge is the error of ask about an answer of more than limit bytes.
var errLarge = errors.New("nf_tables: a long answer")

// ask sends a request to nf_tables and returns the messages of the answer. The error is
// the kernel's errno. An answer of more than limit bytes, if that is not 0, is cut off
// and returned with errLarge.
func (s *socket) ask(limit int, typ, flags int, family byte, about ...*nl.RtAttr) ([]message, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: s.handle}
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: unix.NFNETLINK_V0})
	for _, a := range about {
		req.AddData(a)
	}
	var msgs []message
	total := 0
	err := req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(b []byte) bool {
		msgs = append(msgs, b)
		total += len(b)
		if limit > 0 && total > limit {
			s.close() // otherwise the library reads the answer to its end
			return false
		}
		return true
	})
	switch {
	case limit > 0 && total > limit:
		return msgs, errors.Join(errLarge, s.open())
	case errors.Is(err, unix.EAGAIN):
		return nil, fmt.Errorf("nf_tables: no answer: %w", os.ErrDeadlineExceeded)
	}
	return msgs, err
}

// connect opens a connection for one transaction. buffer is the size of the socket's
// buffers in bytes; 0 is the default.
func connect(ctx context.Context, buffer int) (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		err := c.SetDeadline(deadline(ctx))
		if buffer > 0 {
			err = errors.Join(err, c.SetWriteBuffer(buffer), c.SetReadBuffer(buffer))
		}
		return err
	}))
}

// text is an attribute that is a string.
func text(typ int, s string) *nl.RtAttr { return nl.NewRtAttr(typ, nl.ZeroTerminated(s)) }

// A message is an answer without its netlink header.
type message []byte

func (m message) family() byte { return nl.DeserializeNfgenmsg(m).NfgenFamily }

func (m message) attributes() attributes { return parse(m[nl.SizeofNfgenmsg:]) }

// attributes are those of a message, or those in another attribute.
type attributes []syscall.NetlinkRouteAttr

// parse parses attributes; those of a malformed list are none.
func parse(b []byte) attributes {
	list, _ := nl.ParseRouteAttr(b)
	return list
}

// get is an attribute; nil if it is not there.
func (a attributes) get(typ uint16) []byte {
	for i := range a {
		if a[i].Attr.Type&nl.NLA_TYPE_MASK == typ {
			return a[i].Value
		}
	}
	return nil
}

// in are the attributes in another.
func (a attributes) in(typ uint16) attributes { return parse(a.get(typ)) }

// number is a big-endian number; 0 if there is no such attribute.
func (a attributes) number(typ uint16) uint32 { return be32(a.get(typ)) }

// text is a string; "" if it is not there.
func (a attributes) text(typ uint16) string { return cstring(a.get(typ)) }
