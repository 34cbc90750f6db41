package testnet

import (
	"bufio"
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Capture is a tcpdump at work.
type Capture struct {
	cmd   *exec.Cmd
	err   *bufio.Scanner // its standard error
	wait  chan struct{}  // closed when all of its output has been read
	once  sync.Once
	mu    sync.Mutex
	lines []string
}

// Capture watches the underlay, all hosts' packets, each of them once, until
// Stop or the end of the test. The filter is tcpdump's; "" is everything. Every
// packet that is sent after Capture returns is seen.
func (l *Lab) Capture(t testing.TB, filter string) *Capture {
	t.Helper()
	return CaptureIn(t, l.Underlay, underlayBridge, filter)
}

// CaptureIn is Capture for a link of a host or a namespace.
func CaptureIn(t testing.TB, r Runner, dev, filter string) *Capture {
	t.Helper()
	// To become another user, as tcpdump likes to, would let it outlive us.
	args := []string{"-Z", "root", "-i", dev, "-nn", "-t", "-l", "--immediate-mode"}
	if filter != "" {
		args = append(args, filter)
	}
	c := &Capture{cmd: r.Command(context.Background(), "tcpdump", args...), wait: make(chan struct{})}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	c.err = bufio.NewScanner(stderr)
	go func() {
		defer close(c.wait)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			c.mu.Lock()
			// Indented lines go on with the packet before.
			if text := in.Text(); len(c.lines) > 0 && strings.HasPrefix(text, "\t") {
				c.lines[len(c.lines)-1] += " " + strings.TrimSpace(text)
			} else if text != "" {
				c.lines = append(c.lines, text)
			}
			c.mu.Unlock()
		}
	}()
	var said []string
	for c.err.Scan() {
		if said = append(said, c.err.Text()); strings.HasPrefix(c.err.Text(), "listening on ") {
			return c
		}
	}
	t.Fatalf("tcpdump -i %s %q: %s", dev, filter, strings.Join(said, "\n"))
	return nil
}

// Lines returns the packets printed so far, a line each, without time stamps.
func (c *Capture) Lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.lines...)
}

// Stop ends the capture and returns its packets, a line each, without time
// stamps: all that crossed the link before the call.
func (c *Capture) Stop(t testing.TB) []string {
	t.Helper()
	if err := c.drain(); err != nil {
		t.Fatalf("tcpdump: %v", err)
	}
	_ = Signal(c.cmd, syscall.SIGINT)
	<-c.wait
	c.kill()
	return c.Lines()
}

// progress is what tcpdump answers to SIGUSR1.
var progress = regexp.MustCompile(`^tcpdump: (\d+) packets? captured, (\d+) packets? received by filter`)

// drain waits until tcpdump has printed what it got. Told to end, it would
// forget what waits in its buffer; asked how it is doing, it says how many
// packets it has printed and how many came. On a loopback it leaves out half of
// these, so it is also enough that it prints no more.
func (c *Capture) drain() error {
	const quiet = 100 * time.Millisecond
	last, since := "", time.Now()
	for tick := time.Tick(5 * time.Millisecond); ; <-tick {
		if err := Signal(c.cmd, syscall.SIGUSR1); err != nil {
			return err
		}
		var m []string
		for m == nil {
			if !c.err.Scan() {
				return errors.New("it ended too early")
			}
			m = progress.FindStringSubmatch(c.err.Text())
		}
		if m[1] != last {
			last, since = m[1], time.Now()
		}
		if m[1] == m[2] || time.Since(since) > quiet {
			return nil
		}
	}
}

// kill ends tcpdump, if it still runs, and waits for it.
func (c *Capture) kill() {
	c.once.Do(func() {
		_ = c.cmd.Process.Kill()
		<-c.wait
		_ = c.cmd.Wait()
	})
}
