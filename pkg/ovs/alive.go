package ovs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// VswitchdAlive returns nil if the ovs-vswitchd that serves the database behind
// socket runs, else an error that wraps ErrUnavailable. It looks at the lock that a
// daemon of OVS holds on its pidfile (lib/daemon-unix.c of OVS), which is in the
// directory of the socket. It also returns nil where that directory is not OVS's
// own, so that there are no pidfiles in it.
func VswitchdAlive(socket string) error {
	dir := filepath.Dir(socket)
	pidfile := filepath.Join(dir, vswitchd+".pid")
	f, err := os.Open(pidfile)
	if errors.Is(err, fs.ErrNotExist) {
		if alone(socket) || listens(socket) {
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
		return fmt.Errorf("%w: ovs-vswitchd does not run (no lock on %s)", ErrUnavailable, pidfile)
	}
	return nil
}

// alone reports whether the socket's directory is not OVS's own: it has no pidfile
// of ovsdb-server.
func alone(socket string) bool {
	_, err := os.Stat(filepath.Join(filepath.Dir(socket), "ovsdb-server.pid"))
	return errors.Is(err, fs.ErrNotExist)
}

// listens reports whether some ovs-vswitchd listens on its control socket, for
// installations that keep the pidfile elsewhere.
func listens(socket string) bool {
	c, err := DialControl(context.Background(), socket)
	c.Close()
	return err == nil
}

// VswitchdServes returns nil if the ovs-vswitchd that serves the database behind
// socket runs, answers on its control socket, and takes packets. The error wraps
// ErrUnavailable, and ErrNoHandlers where it takes no packets. An ovs-vswitchd that
// does not answer is given up after about a second, a busy one when ctx ends.
func VswitchdServes(ctx context.Context, socket string) error {
	err := VswitchdAlive(socket)
	if err != nil {
		return err
	}
	_, err = VswitchdVersion(ctx, socket)
	if errors.Is(err, ErrNoControl) && alone(socket) {
		return nil
	}
	if err != nil {
		return err
	}
	return noHandlers(ctx, socket)
}
