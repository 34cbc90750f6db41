package openflow

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ErrRefused is wrapped by errors about a message that the switch refuses, or a reply
// that is malformed. Other errors are about the connection.
var ErrRefused = errors.New("OpenFlow: refused")

// version is the number of OpenFlow 1.4, the first version with bundles. OVS has it since
// 2.8, unless the bridge's column protocols excludes it.
const version = 5

// Types of messages (OFPT_*).
const (
	hello            = 0
	failure          = 1
	echoRequest      = 2
	echoReply        = 3
	flowMod          = 14
	multipartRequest = 18
	multipartReply   = 19
	bundleControl    = 33
	bundleAdd        = 34
)

// A Conn is a connection to one bridge. It is not safe for use by several
// goroutines at once.
type Conn struct {
	conn net.Conn
	r    *bufio.Reader
	xid  uint32
}

// Open begins OpenFlow on a connection to a bridge's management socket, "<bridge>.mgmt" in
// OVS's run directory. After an error conn is closed. The error wraps ErrRefused where the
// bridge does not accept OpenFlow 1.4.
func Open(ctx context.Context, conn net.Conn) (*Conn, error) {
	c := &Conn{conn: conn, r: bufio.NewReaderSize(conn, 1<<16)}
	defer c.bound(ctx)()
	_, err := conn.Write(c.message(nil, hello, nil))
	var first message
	if err == nil {
		first, err = c.read()
	}
	switch {
	case err != nil:
	case first.typ != hello:
		err = fmt.Errorf("%w: the first message is of type %d, not a hello", ErrRefused, first.typ)
	case first.version < version:
		err = fmt.Errorf("%w: it speaks version 0x%02x at most, want 0x%02x (OpenFlow 1.4): see the column protocols of the bridge",
			ErrRefused, first.version, version)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection. Closing nil does nothing.
func (c *Conn) Close() {
	if c != nil {
		_ = c.conn.Close() // replies that count have been read
	}
}

// Aggregate has the sums of several flows' counters.
type Aggregate struct {
	// Packets and Bytes have matched the flows since these were made.
	Packets, Bytes uint64
	// Flows is the number of flows.
	Flows int
}

// Count sums up the flows of all tables whose match is m or narrower, and whose cookie is
// equal to cookie in the bits of mask; the mask 0 is any cookie.
func (c *Conn) Count(ctx context.Context, m Match, cookie, mask uint64) (Aggregate, error) {
	defer c.bound(ctx)()
	body := []byte{0, 2, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0} // OFPMP_AGGREGATE, all tables
	body = binary.BigEndian.AppendUint32(body, anyPort)
	body = binary.BigEndian.AppendUint32(body, anyPort) // OFPG_ANY
	body = append(body, 0, 0, 0, 0)
	body = binary.BigEndian.AppendUint64(body, cookie)
	body = binary.BigEndian.AppendUint64(body, mask)
	if _, err := c.conn.Write(c.message(nil, multipartRequest, m.encode(body))); err != nil {
		return Aggregate{}, err
	}
	reply, err := c.await(multipartReply)
	if err != nil {
		return Aggregate{}, err
	}
	if len(reply) < 8+20 {
		return Aggregate{}, fmt.Errorf("%w: a reply of %d bytes", ErrRefused, len(reply))
	}
	return Aggregate{
		Packets: binary.BigEndian.Uint64(reply[8:]), Bytes: binary.BigEndian.Uint64(reply[16:]),
		Flows: int(binary.BigEndian.Uint32(reply[24:])),
	}, nil
}

// Flows returns how many flows all tables have together. It costs the switch nothing,
// which goes through all flows for Count.
func (c *Conn) Flows(ctx context.Context) (n int, err error) {
	defer c.bound(ctx)()
	body := []byte{0, 3, 0, 0, 0, 0, 0, 0} // OFPMP_TABLE
	if _, err := c.conn.Write(c.message(nil, multipartRequest, body)); err != nil {
		return 0, err
	}
	for more := true; more; {
		reply, err := c.await(multipartReply)
		if err != nil {
			return 0, err
		}
		if len(reply) < 8 {
			return 0, fmt.Errorf("%w: a reply of %d bytes", ErrRefused, len(reply))
		}
		more = reply[3]&1 != 0 // OFPMPF_REPLY_MORE
		for t := reply[8:]; len(t) >= 24; t = t[24:] {
			n += int(binary.BigEndian.Uint32(t[4:]))
		}
	}
	return n, nil
}

// Stages of a bundle (OFPBCT_*).
const (
	bundleOpen   = 0
	bundleCommit = 4
)

// Replace replaces all flows of the bridge by flows, which all get cookie. It is one
// bundle: each frame meets the old flows or the new ones. The error wraps ErrRefused where
// the switch refuses a flow; then nothing has changed.
func (c *Conn) Replace(ctx context.Context, cookie uint64, flows []Flow) error {
	defer c.bound(ctx)()
	if err := c.bundle(bundleOpen); err != nil {
		return err
	}
	buf := c.add(nil, deleteAll())
	for _, f := range flows {
		buf = c.add(buf, f.mod(cookie))
		if len(buf) < 1<<16 {
			continue
		}
		if _, err := c.conn.Write(buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
	// OVS would commit a bundle without the messages that it has refused. Their errors
	// come before the reply to an echo request, so they are read first.
	if _, err := c.conn.Write(c.message(buf, echoRequest, nil)); err != nil {
		return err
	}
	if _, err := c.await(echoReply); err != nil {
		return err
	}
	return c.bundle(bundleCommit)
}

// bundleID is the id of a connection's bundle; there is one at a time.
const bundleID = 1

// atomicOrdered are the flags of a bundle that is applied as a whole and in order
// (OFPBF_*).
const atomicOrdered = 1 | 2

// bundle opens or commits the bundle and waits for the reply.
func (c *Conn) bundle(stage uint16) error {
	body := binary.BigEndian.AppendUint32(nil, bundleID)
	body = binary.BigEndian.AppendUint16(body, stage)
	body = binary.BigEndian.AppendUint16(body, atomicOrdered)
	if _, err := c.conn.Write(c.message(nil, bundleControl, body)); err != nil {
		return err
	}
	_, err := c.await(bundleControl)
	return err
}

// add appends a message that adds a flow-mod to the bundle. Both have the same transaction
// id, as the specification requires.
func (c *Conn) add(b, mod []byte) []byte {
	c.xid++
	b = c.header(b, bundleAdd, 8+8+8+len(mod))
	b = binary.BigEndian.AppendUint32(b, bundleID)
	b = append(b, 0, 0, 0, atomicOrdered)
	b = c.header(b, flowMod, 8+len(mod))
	return append(b, mod...)
}

// Commands of a flow-mod (OFPFC_*).
const (
	modAdd    = 0
	modDelete = 3
)

// mod is the body of the message that makes the flow.
func (f Flow) mod(cookie uint64) []byte {
	return f.actions(f.encode(modHead(modAdd, cookie, f.Priority)))
}

// deleteAll is the body of a message that deletes all flows of all tables.
func deleteAll() []byte { return Match{}.encode(modHead(modDelete, 0, 0)) }

func modHead(command byte, cookie uint64, priority uint16) []byte {
	table := byte(0)
	if command == modDelete {
		table = 0xff // OFPTT_ALL
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 160), cookie)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = append(b, table, command, 0, 0, 0, 0) // no time-outs
	b = binary.BigEndian.AppendUint16(b, priority)
	b = binary.BigEndian.AppendUint32(b, anyPort) // OFP_NO_BUFFER
	b = binary.BigEndian.AppendUint32(b, anyPort)
	b = binary.BigEndian.AppendUint32(b, anyPort) // OFPG_ANY
	return append(b, 0, 0, 0, 0)                  // no flags, no importance
}

// message appends a message of a new transaction.
func (c *Conn) message(b []byte, typ byte, body []byte) []byte {
	c.xid++
	return append(c.header(b, typ, 8+len(body)), body...)
}

func (c *Conn) header(b []byte, typ byte, length int) []byte {
	b = append(b, version, typ)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	return binary.BigEndian.AppendUint32(b, c.xid)
}

type message struct {
	version, typ byte
	xid          uint32
	body         []byte
}

// await reads until the reply of type typ to the last message is there. It returns an
// error for an error message about any message before.
func (c *Conn) await(typ byte) ([]byte, error) {
	for {
		m, err := c.read()
		switch {
		case err != nil:
			return nil, err
		case m.typ == failure:
			return nil, refusal(m.body)
		case m.typ == echoRequest:
			reply := append(c.header(nil, echoReply, 8+len(m.body)), m.body...)
			binary.BigEndian.PutUint32(reply[4:], m.xid)
			if _, err := c.conn.Write(reply); err != nil {
				return nil, err
			}
		case m.typ == typ && m.xid == c.xid:
			return m.body, nil
		}
	}
}

// refusal is the error for an error message of the switch.
func refusal(body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("%w: an error of %d bytes", ErrRefused, len(body))
	}
	return fmt.Errorf("%w: error type %d, code %d (OpenFlow 1.4, section 7.5.4)", ErrRefused,
		binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:]))
}

func (c *Conn) read() (m message, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return m, err
	}
	length := binary.BigEndian.Uint16(head[2:])
	if length < 8 {
		return m, fmt.Errorf("%w: a message of %d bytes", ErrRefused, length)
	}
	m = message{version: head[0], typ: head[1], xid: binary.BigEndian.Uint32(head[4:]), body: make([]byte, length-8)}
	_, err = io.ReadFull(c.r, m.body)
	return m, err
}

// bound makes reads and writes end with ctx, until the function it returns is called.
func (c *Conn) bound(ctx context.Context) func() {
	deadline, _ := ctx.Deadline()
	_ = c.conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}
