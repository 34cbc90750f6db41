package ovs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const vswitchd = "ovs-vswitchd"

// ErrNoCommand is wrapped by errors about a command that ovs-vswitchd does not know,
// because its version is older than the command.
var ErrNoCommand = errors.New("ovs-vswitchd has no such command")

// ErrNoControl is wrapped by errors about a directory of OVSDB's socket without a
// control socket of ovs-vswitchd.
var ErrNoControl = errors.New("no control socket of ovs-vswitchd")

// A Control is a connection to ovs-vswitchd's control socket, the one that
// ovs-appctl(8) uses: JSON-RPC with a method for each command. It is not safe for
// use by several goroutines at once.
type Control struct {
	conn   net.Conn
	dec    *json.Decoder
	lastID int
	// pid is the daemon's, as its pidfile has it; "" where there is none.
	pid string
}

// A Command is a command for ovs-vswitchd and its arguments, as for ovs-appctl.
type Command []string

// An Answer is ovs-vswitchd's answer to a Command: Text, or else Err, which wraps
// ErrRefused, and ErrNoCommand where ovs-vswitchd does not know the command.
type Answer struct {
	Text string
	Err  error
}

// DialControl connects to the ovs-vswitchd that serves the database behind the unix
// socket path; its pidfile and its control socket are in the same directory. The
// error wraps ErrUnavailable, and ErrNoControl where there is no control socket.
func DialControl(ctx context.Context, path string) (*Control, error) {
	dir := filepath.Dir(path)
	var pid string
	var paths []string
	if raw, err := os.ReadFile(filepath.Join(dir, vswitchd+".pid")); err == nil {
		pid = strings.TrimSpace(string(raw))
		paths = []string{filepath.Join(dir, vswitchd+"."+pid+".ctl")}
	} else {
		// The pidfile is elsewhere. Sockets of daemons that were killed remain, and
		// refuse connections.
		paths, _ = filepath.Glob(filepath.Join(dir, vswitchd+"*.ctl"))
	}
	c := &Control{pid: pid}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer c.cancelWhenSilent(ctx, cancel)()
	err := fmt.Errorf("%w: no %s in %s", ErrNoControl, vswitchd+".pid", dir)
	for _, p := range paths {
		var conn *net.UnixConn
		if conn, err = dial(ctx, p); err == nil {
			c.conn, c.dec = conn, json.NewDecoder(io.LimitReader(conn, maxReply))
			return c, nil
		}
	}
	if errors.Is(err, syscall.EAGAIN) {
		return nil, c.silence()
	}
	return nil, fmt.Errorf("%w: %s: its control socket: %w", ErrUnavailable, c, err)
}

// call connects to the ovs-vswitchd that serves the database behind socket for one
// command. The errors are those of DialControl and Call.
func call(ctx context.Context, socket string, command ...string) (string, error) {
	c, err := DialControl(ctx, socket)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.Call(ctx, command...)
}

// Close ends the connection. Closing nil does nothing.
func (c *Control) Close() {
	if c != nil {
		_ = c.conn.Close() // answers that count have been read
	}
}

func (c *Control) String() string {
	if c.pid == "" {
		return vswitchd
	}
	return fmt.Sprintf("%s (pid %s)", vswitchd, c.pid)
}

func (c *Control) silence() error {
	return fmt.Errorf("%w: %s does not answer on its control socket", ErrUnavailable, c)
}

// Call sends one command and returns the text of its answer. The error wraps
// ErrUnavailable or ErrRefused, and ErrNoCommand as in Answer.
func (c *Control) Call(ctx context.Context, command ...string) (string, error) {
	answers, err := c.CallAll(ctx, Command(command))
	if err != nil {
		return "", err
	}
	return answers[0].Text, answers[0].Err
}

// inFlight is how many commands are sent before their answers are read. Their
// answers must fit into a socket's buffer, or both sides would wait.
const inFlight = 50

// CallAll sends commands and returns their answers, in the same order. The error is
// about the connection and wraps ErrUnavailable: ctx has ended, or ovs-vswitchd does
// not answer for a second while it uses no processor time.
func (c *Control) CallAll(ctx context.Context, commands ...Command) ([]Answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer c.cancelWhenSilent(ctx, cancel)()
	defer context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })()
	answers := make([]Answer, 0, len(commands))
	for first := 0; first < len(commands); first += inFlight {
		batch := commands[first:min(first+inFlight, len(commands))]
		if err := c.send(batch); err != nil {
			return nil, c.failed(ctx, err)
		}
		for _, command := range batch {
			a, err := c.answer(command[0])
			if err != nil {
				return nil, c.failed(ctx, err)
			}
			answers = append(answers, a)
		}
	}
	return answers, nil
}

func (c *Control) send(commands []Command) error {
	var b bytes.Buffer
	for _, command := range commands {
		c.lastID++
		msg, err := json.Marshal(map[string]any{"id": c.lastID, "method": command[0], "params": append([]string{}, command[1:]...)})
		if err != nil {
			return err
		}
		b.Write(msg)
	}
	_, err := c.conn.Write(b.Bytes())
	return err
}

// answer reads the next answer; they come in the commands' order.
func (c *Control) answer(command string) (Answer, error) {
	var m struct {
		Result, Error *string
	}
	if err := c.dec.Decode(&m); err != nil {
		return Answer{}, err
	}
	switch {
	case m.Error == nil && m.Result == nil:
		return Answer{}, nil // a command that prints nothing
	case m.Error == nil:
		return Answer{Text: *m.Result}, nil
	case strings.Contains(*m.Error, "is not a valid command"):
		return Answer{Err: fmt.Errorf("%w: %w: %s", ErrRefused, ErrNoCommand, command)}, nil
	}
	return Answer{Err: fmt.Errorf("%w: %s: %s", ErrRefused, command, strings.TrimSpace(brief(*m.Error)))}, nil
}

func (c *Control) failed(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrUnavailable) {
		return cause
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", c.silence(), ctx.Err())
	}
	return fmt.Errorf("%w: %s: its control socket: %w", ErrUnavailable, c, err)
}

// silent is how long ovs-vswitchd may neither answer nor use processor time until it
// counts as one that does not answer.
const silent = time.Second

// unseen is by what factor silent is longer where the process of ovs-vswitchd cannot
// be seen, as in a container's process namespace.
const unseen = 5

// cancelWhenSilent calls end once ovs-vswitchd is silent, until stop is called. A
// busy ovs-vswitchd, with many tunnels at once or on a slow machine, is given until
// ctx ends. It must be silent at two looks: until the first one this process, too,
// may have had no processor to read the answer.
func (c *Control) cancelWhenSilent(ctx context.Context, end context.CancelCauseFunc) (stop func()) {
	_, before := c.cpuTime()
	ticker := time.NewTicker(silent / 2)
	done := make(chan struct{})
	go func() {
		defer ticker.Stop()
		for quiet := 0; ; {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			now, spent := c.cpuTime()
			if quiet++; now || spent != before {
				quiet = 0
			}
			before = spent
			if quiet >= 2*unseen || spent != "" && quiet >= 2 {
				end(c.silence())
				return
			}
		}
	}()
	return func() { close(done) }
}

// cpuTime reports whether the daemon runs, or waits for a processor or the kernel,
// and how much processor time it has used so far (proc_pid_stat(5)). For a process
// that cannot be seen they are false and "".
func (c *Control) cpuTime() (now bool, spent string) {
	if _, err := strconv.Atoi(c.pid); err != nil {
		return false, ""
	}
	raw, err := os.ReadFile("/proc/" + c.pid + "/stat")
	_, rest, ok := strings.Cut(string(raw), "("+vswitchd+") ")
	f := strings.Fields(rest)
	if err != nil || !ok || len(f) < 13 {
		return false, ""
	}
	return f[0] == "R" || f[0] == "D", f[11] + " " + f[12]
}
