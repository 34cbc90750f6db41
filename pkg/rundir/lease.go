package rundir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
)

// The kinds of leases; each is the name of a subdirectory of a Dir.
const (
	// LeasesOVS are those of ovs-gre, LeasesRoutes those of route-sync.
	LeasesOVS    = "leases"
	LeasesRoutes = "routes"
	// pendingRemovals is the subdirectory of AddPendingRemoval.
	pendingRemovals = "gone"
)

// A Lease says that an attachment uses the network. Its file is made before anything
// else of the attachment and removed after everything else, so that a crash leaves
// nothing that has no lease.
type Lease struct {
	// Name is the attachment's port name.
	Name string
	// Attachment is the zero value where a crash left the file empty; nothing
	// else of the attachment exists then.
	config.Attachment
	// Busy: the ADD that acquired the lease still runs.
	Busy bool
}

// Acquire makes a lease, or takes over the one that exists, and reports whether
// no Save has been made yet (fresh). The lease is busy until done is called. The
// error wraps fault.ErrBusy where another call is at work on the same attachment
// until ctx ends.
func (d Dir) Acquire(ctx context.Context, kind string, l Lease) (fresh bool, done func(), err error) {
	raw, err := json.Marshal(l.Attachment)
	if err != nil {
		return false, nil, fmt.Errorf("lease: %w", err)
	}
	for {
		f, held, err := d.open(ctx, kind, l.Name)
		if err != nil {
			return false, nil, err
		}
		if !held {
			// The other call may need the network's lock, which open has released.
			if err := Flock(ctx, f, unix.LOCK_EX); err != nil {
				return false, nil, fmt.Errorf("%w: another call is at work on the same attachment: %w", fault.ErrBusy, err)
			}
			f.Close()
			continue
		}
		if err := writeLease(f, raw); err != nil {
			f.Close()
			return false, nil, fmt.Errorf("lease: %w", err)
		}
		_, err = os.Lstat(filepath.Join(string(d), "nodes.json"))
		return err != nil, func() { f.Close() }, nil
	}
}

// open opens a lease's file, makes it if it is absent, and reports whether this call
// now holds it: no other call held it, and none has removed the file meanwhile.
func (d Dir) open(ctx context.Context, kind, name string) (f *os.File, held bool, err error) {
	// The shared lock keeps another call, which removes unused host state under
	// the exclusive lock, from counting leases while this one is made.
	unlock, err := d.Lock(ctx, true)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	if _, err := d.create(kind); err != nil {
		return nil, false, err
	}
	f, err = os.OpenFile(d.leasePath(kind, name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("lease: %w", err)
	}
	return f, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && isSameFile(f), nil
}

// writeLease writes a lease's content, unless the file has it already: a call that is
// killed between truncating and writing must not empty the lease of a live container.
func writeLease(f *os.File, raw []byte) error {
	if have, err := io.ReadAll(f); err != nil || bytes.Equal(have, raw) {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(raw, 0)
	return err
}

// TryLockLease keeps ADD from acquiring a lease until done is called. ok is false
// where an ADD holds the lease. A lease that does not exist counts as locked.
func (d Dir) TryLockLease(kind, name string) (done func(), ok bool, err error) {
	if err := d.checkOwners(kind); err != nil {
		return nil, false, err
	}
	f, err := os.OpenFile(d.leasePath(kind, name), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, true, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("lease: %w", err)
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil {
		f.Close()
		return nil, false, nil
	}
	return func() { f.Close() }, true, nil
}

// MayHaveAcquired reports whether an Acquire that failed with err may have made files:
// not where it found foreign ones, nor where it waited for a lock in vain.
func MayHaveAcquired(err error) bool {
	return err != nil && !errors.Is(err, fault.ErrForeign) && !errors.Is(err, fault.ErrBusy)
}

// HasLease reports whether a lease exists.
func (d Dir) HasLease(kind, name string) (bool, error) {
	if err := d.checkOwners(kind); err != nil {
		return false, err
	}
	_, err := os.Lstat(d.leasePath(kind, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Release removes a lease. It is no error if there is none.
func (d Dir) Release(kind, name string) error {
	if err := d.checkOwners(kind); err != nil {
		return err
	}
	if err := os.Remove(d.leasePath(kind, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lease: %w", err)
	}
	return nil
}

// Leases returns the leases of a kind.
func (d Dir) Leases(kind string) ([]Lease, error) {
	if err := d.checkOwners(kind); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(string(d), kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	var list []Lease
	for _, e := range entries {
		l := Lease{Name: e.Name()}
		f, err := os.OpenFile(d.leasePath(kind, l.Name), os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue // released meanwhile, or a link
		}
		l.Busy = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
		_ = json.NewDecoder(f).Decode(&l.Attachment)
		f.Close()
		list = append(list, l)
	}
	return list, nil
}

// Unused reports whether there is no lease of these kinds and the network is not
// persistent. The answer holds for as long as the caller holds the exclusive lock.
func (d Dir) Unused(kinds ...string) (bool, error) {
	if d.Persistent() {
		return false, nil
	}
	for _, kind := range kinds {
		if err := d.checkOwners(kind); err != nil {
			return false, err
		}
		f, err := os.Open(filepath.Join(string(d), kind))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("leases: %w", err)
		}
		names, _ := f.Readdirnames(1)
		f.Close()
		if len(names) > 0 {
			return false, nil
		}
	}
	return true, nil
}

// RemoveIfUnused removes the directory if there is no lease, no saved configuration
// and no pending removal, and the network is not persistent.
func (d Dir) RemoveIfUnused(ctx context.Context) error {
	unlock, err := d.Lock(ctx, false)
	if err != nil {
		return err
	}
	defer unlock()
	if unused, err := d.Unused(LeasesOVS, LeasesRoutes); err != nil || !unused || d.SavedConfig() != nil || len(d.PendingRemovals()) > 0 {
		return err
	}
	return d.Remove()
}

// AddPendingRemoval records a port that could not be removed from OVSDB.
func (d Dir) AddPendingRemoval(name string) error {
	if _, err := d.create(pendingRemovals); err != nil {
		return err
	}
	return os.WriteFile(d.leasePath(pendingRemovals, name), nil, 0o600)
}

// PendingRemovals returns the ports that AddPendingRemoval recorded.
func (d Dir) PendingRemovals() []string {
	if d.checkOwners(pendingRemovals) != nil {
		return nil
	}
	entries, _ := os.ReadDir(filepath.Join(string(d), pendingRemovals))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// ClearPendingRemovals removes the records of ports that are no longer in OVSDB.
func (d Dir) ClearPendingRemovals(names ...string) {
	if d.checkOwners(pendingRemovals) != nil {
		return
	}
	for _, n := range names {
		_ = os.Remove(d.leasePath(pendingRemovals, n))
	}
}

func (d Dir) leasePath(kind, name string) string {
	return filepath.Join(string(d), kind, filepath.Base(name))
}
