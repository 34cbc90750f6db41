package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/ovn-org/libovsdb/ovsdb"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
)

// ErrUnavailable and ErrRefused are those of package fault: OVS does not run or does
// not answer, and OVS refuses a request.
var (
	ErrUnavailable = fault.ErrUnavailable
	ErrRefused     = fault.ErrRefused
)

// database is the name of OVS's schema (ovs-vswitchd.conf.db(5)).
const database = "Open_vSwitch"

// maxReply is how many bytes a Conn reads at most, against a server that sends
// without end. 5,000 ports are about 5 MB.
const maxReply = 256 << 20

// firstReply bounds the wait for the first reply on a Conn, also for callers that have
// more time: a server that hangs answers nothing. It is a choice.
const firstReply = 10 * time.Second

// A Conn is a connection to OVSDB for one call. It is not safe for use by
// several goroutines at once.
type Conn struct {
	path    string
	conn    net.Conn
	dec     *json.Decoder
	lastID  int
	replies map[int]message
	// answered: a message of the server has come.
	answered bool
	// nextCfg is as of NextCfg.
	nextCfg int
}

// NextCfg is the value to which DelPorts has increased OVS's column next_cfg, by 1.
// 0 means that it has not: it removed no port of a bridge of the userspace datapath.
func (c *Conn) NextCfg() int { return c.nextCfg }

// message is any JSON-RPC message of the server. All requests of a Conn are
// transactions, so that a reply's result is a list.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result []Result        `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// Dial connects to the unix socket path. The error wraps ErrUnavailable and
// names the path.
func Dial(ctx context.Context, path string) (*Conn, error) {
	conn, err := dial(ctx, path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w: no OVSDB socket %s: is openvswitch installed and ovsdb-server running?", ErrUnavailable, path)
		}
		return nil, fmt.Errorf("%w: connect to OVSDB: %w", ErrUnavailable, err)
	}
	return &Conn{path: path, conn: conn, dec: json.NewDecoder(io.LimitReader(conn, maxReply)), replies: map[int]message{}}, nil
}

// dial connects to a unix socket. net.Dialer.DialContext does the same, and
// brings Go's DNS resolver into the program: 0.24 MB.
//
// Where more connections wait than the server's backlog holds (64 in
// lib/stream-unix.c of OVS), connect(2) says EAGAIN at once: dial tries again
// until ctx ends, and returns EAGAIN then. It tries once in any case, for
// connect(2) does not wait: a process that had no processor until ctx ended
// learns from it whether the server is there.
func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 32*time.Millisecond) {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

// Close ends the connection. Closing nil does nothing.
func (c *Conn) Close() {
	if c != nil {
		_ = c.conn.Close() // answers that count have been read
	}
}

// A Row is one row of a reply; see the functions of value.go for its columns.
type Row map[string]json.RawMessage

// A Result is the result of one operation.
type Result struct {
	Count   int             `json:"count"`
	Error   string          `json:"error"`
	Details string          `json:"details"`
	UUID    json.RawMessage `json:"uuid"`
	Rows    []Row           `json:"rows"`
}

// A Pending is a transaction that was sent; Results waits for its reply.
type Pending struct {
	conn *Conn
	id   int
	ops  []ovsdb.Operation
}

// Start sends a transaction without waiting for its reply.
func (c *Conn) Start(ctx context.Context, ops ...ovsdb.Operation) (*Pending, error) {
	c.lastID++
	params := []any{database}
	for _, op := range ops {
		params = append(params, wire(op))
	}
	msg, err := json.Marshal(map[string]any{"id": c.lastID, "method": "transact", "params": params})
	if err != nil {
		return nil, err
	}
	if err := c.write(ctx, msg); err != nil {
		return nil, err
	}
	return &Pending{conn: c, id: c.lastID, ops: ops}, nil
}

// Results waits for the reply: one Result for each operation. The error wraps
// ErrUnavailable where no complete reply came in time. Where the server rejected
// the transaction, it wraps libovsdb's typed error.
func (p *Pending) Results(ctx context.Context) ([]Result, error) {
	m, err := p.conn.reply(ctx, p.id)
	if err != nil {
		return nil, err
	}
	if len(m.Error) > 0 && string(m.Error) != "null" {
		return nil, fmt.Errorf("%w: OVSDB %s: %s", ErrUnavailable, p.conn.path, cut(m.Error))
	}
	// The reply holds null for every operation after one that failed.
	if len(m.Result) < len(p.ops) {
		return nil, fmt.Errorf("%w: OVSDB %s answered what is not a reply: %d results of %d operations",
			ErrUnavailable, p.conn.path, len(m.Result), len(p.ops))
	}
	checked := make([]ovsdb.OperationResult, len(m.Result))
	for i, r := range m.Result {
		checked[i] = ovsdb.OperationResult{Error: brief(r.Error), Details: brief(r.Details)}
	}
	operr, err := ovsdb.CheckOperationResults(checked, p.ops)
	if len(operr) > 0 {
		err = operr[0]
	}
	var timedOut *ovsdb.TimedOut
	if errors.As(err, &timedOut) {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err != nil {
		return nil, fmt.Errorf("OVSDB transaction: %w", err)
	}
	return m.Result, nil
}

// await is Results for a transaction that waits for ovs-vswitchd. It ends early if
// ovs-vswitchd does not answer on its control socket.
func (p *Pending) await(ctx context.Context) ([]Result, error) {
	ctx, stop := unlessSilent(ctx, p.conn.path)
	defer stop()
	res, err := p.Results(ctx)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrUnavailable) {
		err = cause
	}
	return res, err
}

// unlessSilent returns a context that ends early if the ovs-vswitchd that serves the
// database behind socket does not answer; its cause then wraps ErrUnavailable.
func unlessSilent(ctx context.Context, socket string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ask := time.AfterFunc(silent, func() {
		if err := VswitchdServes(ctx, socket); err != nil && !errors.Is(err, ErrNoHandlers) {
			cancel(err)
		}
	})
	return ctx, func() {
		ask.Stop()
		cancel(nil)
	}
}

// Transact sends a transaction and waits for its results.
func (c *Conn) Transact(ctx context.Context, ops ...ovsdb.Operation) ([]Result, error) {
	p, err := c.Start(ctx, ops...)
	if err != nil {
		return nil, err
	}
	return p.Results(ctx)
}

func (c *Conn) write(ctx context.Context, msg []byte) error {
	defer c.bound(ctx)()
	if _, err := c.conn.Write(msg); err != nil {
		return fmt.Errorf("%w: write to OVSDB: %w", ErrUnavailable, err)
	}
	return nil
}

// reply reads until the reply with id is there. Replies to other requests are
// kept, the server's echo requests (RFC 7047, section 4.1.11) answered.
func (c *Conn) reply(ctx context.Context, id int) (message, error) {
	if !c.answered {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, firstReply)
		defer cancel()
	}
	defer c.bound(ctx)()
	for {
		if m, ok := c.replies[id]; ok {
			delete(c.replies, id)
			return m, nil
		}
		var m message
		if err := c.dec.Decode(&m); err != nil {
			return m, c.readError(ctx, err)
		}
		c.answered = true
		if m.Method == "echo" {
			echo, err := json.Marshal(map[string]any{"id": m.ID, "result": m.Params, "error": nil})
			if err != nil {
				return m, err
			}
			if _, err := c.conn.Write(echo); err != nil {
				return m, c.readError(ctx, err)
			}
			continue
		}
		var got int
		if m.Method == "" && json.Unmarshal(m.ID, &got) == nil {
			c.replies[got] = m
		}
	}
}

func (c *Conn) readError(ctx context.Context, err error) error {
	var form *json.UnmarshalTypeError
	switch {
	case errors.As(err, &form):
		return fmt.Errorf("%w: OVSDB %s answered what is not a reply: %w", ErrUnavailable, c.path, err)
	case errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil:
		return fmt.Errorf("%w: OVSDB %s did not answer in time", ErrUnavailable, c.path)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: OVSDB %s closed the connection", ErrUnavailable, c.path)
	}
	return fmt.Errorf("%w: read from OVSDB %s: %w", ErrUnavailable, c.path, err)
}

// bound makes reads and writes end with ctx, until the function it returns is called.
func (c *Conn) bound(ctx context.Context) func() {
	deadline, _ := ctx.Deadline()
	_ = c.conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// brief cuts a text of the server to 500 bytes; OVS's own are a line or two.
func brief(s string) string { return config.Clip(s, 500) }

// cut quotes a text of the server, cut to 200 bytes, so that it is one line.
func cut(b []byte) string { return strconv.Quote(config.Clip(string(b), 200)) }
