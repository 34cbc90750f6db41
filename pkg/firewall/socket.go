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

// A socket asks nf_tables questions. It is kept for all of them: the library
// else opens one for each.
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

// errLarge: the answer is longer than anybody wants to read.
var errLarge = errors.New("nf_tables: a long answer")

// ask sends a question of nf_tables and returns the answers. What the kernel
// refuses is its errno. Of an answer of more than limit bytes, where that is
// not 0, come the first, with errLarge.
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
			s.close() // the library else reads the answer to its end
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

// connect readies a transaction. buffer is how many bytes the kernel is to take
// and to give in one piece; 0 is what sockets have anyway.
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

// parse returns no attributes of what the kernel would not write.
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

// number is what the kernel puts as big-endian; 0 if it is not there.
func (a attributes) number(typ uint16) uint32 { return be32(a.get(typ)) }

// text is a string; "" if it is not there.
func (a attributes) text(typ uint16) string { return cstring(a.get(typ)) }
