package ovs

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// VswitchdAlive returns nil if the ovs-vswitchd that serves the database
// behind socket runs, else an error that wraps ErrUnavailable. It asks nobody
// and changes nothing: a daemon of OVS holds a lock on its pidfile
// (lib/daemon-unix.c of OVS), which lies beside the socket.
func VswitchdAlive(socket string) error {
	dir := filepath.Dir(socket)
	pidfile := filepath.Join(dir, "ovs-vswitchd.pid")
	f, err := os.Open(pidfile)
	if errors.Is(err, fs.ErrNotExist) {
		if answers(dir) {
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

// answers reports whether some ovs-vswitchd listens on its control socket in
// dir, for installations that keep the pidfile elsewhere.
func answers(dir string) bool {
	ctls, _ := filepath.Glob(filepath.Join(dir, "ovs-vswitchd*.ctl"))
	for _, ctl := range ctls {
		if c, err := net.Dial("unix", ctl); err == nil {
			c.Close()
			return true
		}
	}
	return false
}
