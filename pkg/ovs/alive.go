package ovs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// VswitchdAlive returns nil if the ovs-vswitchd that serves the database
// behind socket runs, else an error that wraps ErrUnavailable. It asks nobody
// and changes nothing: a daemon of OVS holds a lock on its pidfile
// (lib/daemon-unix.c of OVS), which lies beside the socket.
func VswitchdAlive(socket string) error {
	dir := filepath.Dir(socket)
	pidfile := filepath.Join(dir, vswitchd+".pid")
	f, err := os.Open(pidfile)
	if errors.Is(err, fs.ErrNotExist) {
		if listens(socket) {
			return nil
		}
		return fmt.Errorf("%w: ovs-vswitchd does not run (no %s)", ErrUnavailable, pidfile)
	}
	if err != nil {
		return fmt.Errorf("%w: ovs-vswitchd: %w", ErrUnavailable, err)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return fmt.Errorf("%w: ovs-vswitchd: lock of %s: %w", ErrUnavailable, pidfile, err)
	}
	if lock.Type == unix.F_UNLCK {
		return fmt.Errorf("%w: ovs-vswitchd does not run (nobody holds %s)", ErrUnavailable, pidfile)
	}
	return nil
}

// listens reports whether some ovs-vswitchd listens on its control socket, for
// installations that keep the pidfile elsewhere.
func listens(socket string) bool {
	c, err := DialControl(context.Background(), socket)
	c.Close()
	return err == nil
}

// ErrNoHandlers is wrapped by errors about an ovs-vswitchd that runs and
// answers, and takes no packet from the kernel's datapath: it has no thread for
// that. Every packet without a flow is lost.
var ErrNoHandlers = errors.New("ovs-vswitchd takes no packets from the kernel (it has no handler thread)")

// VswitchdServes returns nil if the ovs-vswitchd that serves the database
// behind socket runs, answers on its control socket, and has threads that take
// packets from its datapaths. It changes nothing. The error wraps
// ErrUnavailable, and ErrNoHandlers where that is why. It comes within a second
// or so, unless ovs-vswitchd is busy.
func VswitchdServes(ctx context.Context, socket string) error {
	if err := VswitchdAlive(socket); err != nil {
		return err
	}
	c, err := DialControl(ctx, socket)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.serves(ctx)
}

// serves asks by a command that counts threads, among much else, and leaves out
// what there is none of (udpif_get_memory_usage in ofproto/ofproto-dpif-upcall.c
// of OVS). Without a bridge there are no revalidators either.
func (c *Control) serves(ctx context.Context) error {
	text, err := c.Call(ctx, "memory/show")
	if err != nil {
		return err
	}
	if strings.Contains(text, "revalidators:") && !strings.Contains(text, "handlers:") {
		return fmt.Errorf("%w: %w", ErrUnavailable, ErrNoHandlers)
	}
	return nil
}

// counted is how long after boot ovs-vswitchd 3.1.0 takes 0 processors for the
// truth, and starts no handler thread on the kernel's datapath (count_cpu_cores
// in lib/ovs-thread.c of OVS; mended in 3.1.1). Afterwards it counts again
// whenever something changes in OVSDB, and at no other time.
const counted = 10 * time.Second

// Counted reports whether ovs-vswitchd counts processors rightly by now.
func Counted() bool { return sinceBoot() > counted }

// sinceBoot is the clock that ovs-vswitchd goes by.
func sinceBoot() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // never fails with this clock
	return time.Duration(t.Nano())
}

// Serve sees to it that ovs-vswitchd answers and takes packets: one that was
// started in the first ten seconds after boot is made to start its handler
// threads once they are over. Where nothing is amiss it changes nothing. The
// error is VswitchdServes'.
func (c *Conn) Serve(ctx context.Context) error {
	err := VswitchdServes(ctx, c.path)
	if !errors.Is(err, ErrNoHandlers) {
		return err
	}
	select {
	case <-time.After(counted + 100*time.Millisecond - sinceBoot()):
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", err, ctx.Err())
	}
	if err := c.commit(ctx, nil); err != nil {
		return err
	}
	return VswitchdServes(ctx, c.path)
}
