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

// VswitchdAlive returns nil if the ovs-vswitchd that serves the database
// behind socket runs, else an error that wraps ErrUnavailable. It asks nobody
// and changes nothing: a daemon of OVS holds a lock on its pidfile
// (lib/daemon-unix.c of OVS), which lies beside the socket. Where the socket is
// alone, without the pidfile of ovsdb-server, nothing can be told, and it
// returns nil.
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
		return fmt.Errorf("%w: ovs-vswitchd does not run (nobody holds %s)", ErrUnavailable, pidfile)
	}
	return nil
}

// alone reports whether OVSDB's socket is in a directory that is not OVS's own.
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

// VswitchdServes returns nil if the ovs-vswitchd that serves the database
// behind socket runs, answers on its control socket, and takes packets. It
// changes nothing. The error wraps ErrUnavailable, and ErrNoHandlers where that
// is why. It comes within a second or so, unless ovs-vswitchd is busy.
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
