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

// The plugins that hold leases, which are also directories of a Dir.
const (
	LeasesOVS       = "leases"
	LeasesRoutes    = "routes"
	pendingRemovals = "gone"
)

// A Lease stands for one attachment. Its file is made before anything else of
// the attachment and removed after everything else, so that whatever a crash
// leaves has its lease.
type Lease struct {
	// Name is the attachment's port name.
	Name string
	// Attachment is zero where a crash left the file empty; nothing else of
	// the attachment exists then.
	config.Attachment
	// Busy: the ADD that made it is still at work.
	Busy bool
}

// Acquire makes a lease, or takes the one that is there over, and reports whether
// no host state has been handed on yet. Until the function it returns is
// called, others see the lease as busy.
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
			// Whoever has it may want the network's lock, which we no longer hold.
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

// open opens a lease's file and reports whether it is now held: nobody else
// was at work on it, and nobody has removed it meanwhile.
func (d Dir) open(ctx context.Context, kind, name string) (f *os.File, held bool, err error) {
	// Shared, so that nobody counts leases and finds none while this one comes.
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

// writeLease gives a lease its content, unless it has it: a call that is killed in
// between must not empty the lease of a container that lives.
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

// TryLockLease keeps an ADD from taking a lease over until the function it returns is
// called. ok is false where one is at work; a lease that is not there is idle.
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

// MayHaveAcquired reports whether Acquire, which failed with err, may have left something:
// not where it met a stranger's, nor where it waited for the lock in vain.
func MayHaveAcquired(err error) bool {
	return err != nil && !errors.Is(err, fault.ErrForeign) && !errors.Is(err, fault.ErrBusy)
}

// HasLease reports whether there is a lease.
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

// Release removes a lease, if it is there.
func (d Dir) Release(kind, name string) error {
	if err := d.checkOwners(kind); err != nil {
		return err
	}
	if err := os.Remove(d.leasePath(kind, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lease: %w", err)
	}
	return nil
}

// Leases lists the leases of a kind.
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
			continue // released meanwhile, or not a lease
		}
		l.Busy = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
		_ = json.NewDecoder(f).Decode(&l.Attachment)
		f.Close()
		list = append(list, l)
	}
	return list, nil
}

// Unused reports whether no attachment of these kinds is left and nothing keeps
// host state. Only under the exclusive lock does it stay true.
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

// RemoveIfUnused takes the directory away if it has come to nothing: no attachment,
// and no host state made.
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

// AddPendingRemoval notes a port that could not be taken out of OVSDB.
func (d Dir) AddPendingRemoval(name string) error {
	if _, err := d.create(pendingRemovals); err != nil {
		return err
	}
	return os.WriteFile(d.leasePath(pendingRemovals, name), nil, 0o600)
}

// PendingRemovals lists the ports that AddPendingRemoval noted.
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

// ClearPendingRemovals ends what AddPendingRemoval began.
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
