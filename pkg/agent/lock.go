package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errBusy is the error where the store is locked: two would undo each other's work.
var errBusy = errors.New("an agent runs on this host, or another uninstall")

// LockStore takes the lock of a store and returns the function that releases it. An agent
// holds the lock while it runs, an uninstall while it works. LockStore does not wait.
func LockStore(store string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(store), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(lockFile(store), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s is locked", errBusy, f.Name())
	}
	return func() { f.Close() }, nil
}

func lockFile(store string) string { return store + ".lock" }
