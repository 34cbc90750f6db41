package ovs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
	return locked(f)
}

// DaemonAlive returns nil if the daemon of OVS runs that has this name, such as
// ovs-monitor-ipsec, else an error that wraps ErrUnavailable. It looks as VswitchdAlive
// does.
func DaemonAlive(socket, name string) error {
	f, err := os.Open(filepath.Join(filepath.Dir(socket), name+".pid"))
	if err != nil {
		return fmt.Errorf("%w: %s does not run: %w", ErrUnavailable, name, err)
	}
	defer f.Close()
	return locked(f)
}

// locked returns nil if a daemon holds the lock on its pidfile.
func locked(pidfile *os.File) error {
	daemon := strings.TrimSuffix(filepath.Base(pidfile.Name()), ".pid")
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(pidfile.Fd(), unix.F_GETLK, &lock); err != nil {
		return fmt.Errorf("%w: %s: lock of %s: %w", ErrUnavailable, daemon, pidfile.Name(), err)
	}
	if lock.Type == unix.F_UNLCK {
		return fmt.Errorf("%w: %s does not run (no lock on %s)", ErrUnavailable, daemon, pidfile.Name())
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
