// Package rundir keeps a network's directory in /run: the network's lock, the
// leases of its attachments, and the configuration and nodes that its host state
// was last made from.
//
// Nothing in it is believed without a look at the host; DEL and GC need it when the
// runtime no longer has the configuration.
package rundir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/atomicfile"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/nodes"
)

// RunDir holds a directory for each network. It is on tmpfs: a reboot removes the
// directories together with the host state that they describe.
const RunDir = "/run/ovs-gre"

// A Dir is the directory of one network:
//
//	lock            held while host state is changed
//	leases/NAME     an attachment of ovs-gre; NAME is its port
//	routes/NAME     an attachment of route-sync
//	gone/NAME       a port that DEL could not remove from OVSDB
//	persistent      host state stays when the last container leaves
//	nodes.json      the nodes that host state was last made from,
//	node            the name of this host among them,
//	config.json     and the configuration
//	condensed       what routes by one tunnel port need of many nodes
//	mark            which state of OVSDB was found to be right for these
//	routes.json     the configuration that routes were last made of
//	accept_ra       links of others that go on listening to routers
//	gateways        the gateway addresses that this host has had in the network
//
// The directory exists as long as one of these files does. The zero Dir belongs
// to no network: reads of it find nothing, and the errors of all other calls wrap
// config.ErrInvalid.
type Dir string

// NetworkDir returns the directory of a network, or the zero Dir where network is
// not a valid name.
func NetworkDir(network string) Dir {
	if config.CheckName(network) != nil {
		return ""
	}
	return Dir(filepath.Join(RunDir, network))
}

// checkName returns an error for the zero Dir, so that an invalid name never becomes
// a path.
func (d Dir) checkName() error {
	if d == "" {
		return fmt.Errorf("state directory: %w: not the name of a network", config.ErrInvalid)
	}
	return nil
}

// Exists reports whether the directory exists. Where it does not, Exists removes an
// empty RunDir, which a killed call may have left behind.
func (d Dir) Exists() bool {
	if d.checkName() != nil {
		return false
	}
	if _, err := os.Lstat(string(d)); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	_ = os.Remove(RunDir)
	return false
}

// create makes the directory and its subdirectory sub, and reports whether the
// directory is new. A path on the way that another user can write to is refused.
func (d Dir) create(sub string) (fresh bool, err error) {
	if err := d.checkName(); err != nil {
		return false, err
	}
	for _, dir := range []string{RunDir, string(d), filepath.Join(string(d), sub)} {
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			fresh = fresh || dir == string(d)
			continue
		}
		if !errors.Is(err, fs.ErrExist) {
			return false, fmt.Errorf("state directory: %w", err)
		}
		if err := checkOwner(dir); err != nil {
			return false, err
		}
	}
	return fresh, nil
}

// CheckWritable returns an error if no file can be made in the network's directory, or
// where that is to be made. It makes none.
func (d Dir) CheckWritable() error {
	for _, dir := range []string{RunDir, string(d)} {
		if err := checkOwner(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := CheckWritable(string(d)); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// CheckWritable returns an error if no file can be made in dir or, while that does not
// exist, in the first directory above it that does: its file system is read-only or
// full. It makes none.
func CheckWritable(dir string) error {
	for {
		err := unix.Access(dir, unix.W_OK)
		if up := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && up != dir {
			dir = up
			continue
		}
		var fsys unix.Statfs_t
		if err == nil {
			err = unix.Statfs(dir, &fsys)
		}
		// A file system without such limits has none of either in all.
		if err == nil && (fsys.Blocks > 0 && fsys.Bfree == 0 || fsys.Files > 0 && fsys.Ffree == 0) {
			err = unix.ENOSPC
		}
		if err != nil {
			return &fs.PathError{Op: "write to", Path: dir, Err: err}
		}
		return nil
	}
}

// checkOwner returns an error unless dir is a directory that nobody but this user can
// write to. The error wraps fault.ErrForeign, or fs.ErrNotExist.
func checkOwner(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !st.IsDir() || !ok || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("state directory %s: %w: want a directory of root's that nobody else can write to (mode 0700)", dir, fault.ErrForeign)
	}
	return nil
}

// checkOwners returns an error unless the directory and its subdirectory sub are
// absent or writable for this user alone. Files that another user may have put there
// are not read, and links are not followed.
func (d Dir) checkOwners(sub string) error {
	if err := d.checkName(); err != nil {
		return err
	}
	for _, dir := range []string{RunDir, string(d), filepath.Join(string(d), sub)} {
		if err := checkOwner(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// maxTries bounds how often Lock makes the directory again after another process has
// removed it. Only where RunDir is the mount of a removed directory, in which nothing
// can be made, does Lock get that far.
const maxTries = 1000

// Lock takes the network's lock and returns the function that releases it. A shared
// lock excludes only exclusive ones. Lock waits until ctx ends; the error then
// wraps fault.ErrBusy.
func (d Dir) Lock(ctx context.Context, shared bool) (unlock func(), err error) {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	for tries := 0; ; tries++ {
		if _, err := d.create(""); errors.Is(err, fs.ErrNotExist) && tries < maxTries {
			continue // another process has just removed RunDir
		} else if err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(string(d), "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process has just removed the directory
		}
		if err != nil {
			return nil, fmt.Errorf("lock of the network: %w", err)
		}
		if err := Flock(ctx, f, how); err != nil {
			return nil, fmt.Errorf("%w: another call holds %s: %w", fault.ErrBusy, f.Name(), err)
		}
		if isSameFile(f) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}

// Flock takes a lock (LOCK_EX or LOCK_SH of flock(2)) on an open file and waits for it
// until ctx ends; the error is then ctx's. On an error Flock closes the file, at
// once or later: a system call that waits cannot be interrupted, so it goes on until
// the lock is free, and closing the file then releases the lock.
func Flock(ctx context.Context, f *os.File, how int) error {
	fd := int(f.Fd())
	if err := unix.Flock(fd, how|unix.LOCK_NB); err == nil {
		return nil
	}
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if err = unix.Flock(fd, how); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	select {
	case <-done:
		if err != nil {
			f.Close()
		}
		return err
	case <-ctx.Done():
		go func() {
			<-done
			f.Close()
		}()
		return ctx.Err()
	}
}

// isSameFile reports whether the path of an open file still leads to that file.
func isSameFile(f *os.File) bool {
	open, err1 := f.Stat()
	named, err2 := os.Lstat(f.Name())
	return err1 == nil && err2 == nil && os.SameFile(open, named)
}

// Remove removes the directory. The caller holds the exclusive lock.
func (d Dir) Remove() error {
	if err := d.checkName(); err != nil {
		return err
	}
	if err := os.RemoveAll(string(d)); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	_ = os.Remove(RunDir) // succeeds where this was the last network
	return nil
}

// SetPersistent records whether host state stays when the last container leaves.
func (d Dir) SetPersistent(on bool) error {
	if err := d.checkName(); err != nil {
		return err
	}
	path := filepath.Join(string(d), "persistent")
	if !on {
		return d.remove("persistent")
	}
	if _, err := d.create(""); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// Persistent reports what SetPersistent recorded last; false if it never did.
func (d Dir) Persistent() bool {
	if d.checkName() != nil {
		return false
	}
	_, err := os.Lstat(filepath.Join(string(d), "persistent"))
	return err == nil
}

// Save records what host state is made from: the nodes, the name of this host among
// them, and the configuration. It clears the mark.
func (d Dir) Save(list []config.Node, self string, config []byte) error {
	if _, err := d.create(""); err != nil {
		return err
	}
	return errors.Join(
		d.SetMark(""),
		replaceFile(filepath.Join(string(d), "node"), []byte(self)),
		replaceFile(filepath.Join(string(d), "config.json"), config),
		nodes.Store(filepath.Join(string(d), "nodes.json"), list),
		d.saveCondensed(list, self))
}

// IsSaved reports whether Save left just this: the nodes of m, this host first.
func (d Dir) IsSaved(m nodes.Topology, conf []byte) bool {
	if !bytes.Equal(d.read("config.json"), conf) || string(d.read("node")) != m.Self.Name || d.checkOwners("") != nil {
		return false
	}
	f, err := os.Open(filepath.Join(string(d), "nodes.json"))
	if err != nil {
		return false
	}
	defer f.Close()
	return config.IsEncoded(f, []config.Node{m.Self}, m.Peers)
}

// SavedNodes returns the nodes, and the name of this host among them, of the last
// Save. The error wraps nodes.ErrNotReady where there was none.
func (d Dir) SavedNodes() (list []config.Node, self string, err error) {
	if err := d.checkOwners(""); err != nil {
		return nil, "", err
	}
	list, err = nodes.Load(filepath.Join(string(d), "nodes.json"))
	if err != nil {
		return nil, "", err
	}
	name, err := os.ReadFile(filepath.Join(string(d), "node"))
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", nodes.ErrNotReady, err)
	}
	return list, string(name), nil
}

// SetMark records a text that names the state of OVSDB which was found to match the
// last Save.
func (d Dir) SetMark(text string) error {
	if err := d.checkName(); err != nil {
		return err
	}
	return replaceFile(filepath.Join(string(d), "mark"), []byte(text))
}

// Mark returns the text of the last SetMark since the last Save, or "".
func (d Dir) Mark() string { return string(d.read("mark")) }

// AdvanceMark replaces the number to-1 at the end of the mark by to. A mark that ends
// in another number stays, and every mark where to is 0.
func (d Dir) AdvanceMark(to int) error {
	mark, ok := strings.CutSuffix(d.Mark(), " "+strconv.Itoa(to-1))
	if !ok || to == 0 {
		return nil
	}
	return d.SetMark(mark + " " + strconv.Itoa(to))
}

// RemoveConfig removes the configuration of the last Save. The nodes stay: route-sync
// may still need them.
func (d Dir) RemoveConfig() error { return d.remove("config.json") }

// remove removes a file. That it is gone already is no error.
func (d Dir) remove(name string) error {
	if err := d.checkName(); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(string(d), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SaveRoutesConfig records the configuration that routes are made from.
func (d Dir) SaveRoutesConfig(config []byte) error {
	if _, err := d.create(""); err != nil {
		return err
	}
	return replaceFile(filepath.Join(string(d), "routes.json"), config)
}

// SavedConfig returns the configuration of the last Save, or nil.
func (d Dir) SavedConfig() []byte { return d.read("config.json") }

// RemoveRoutesConfig removes the configuration of the last SaveRoutesConfig.
func (d Dir) RemoveRoutesConfig() error { return d.remove("routes.json") }

// SavedRoutesConfig returns the configuration of the last SaveRoutesConfig, or nil.
func (d Dir) SavedRoutesConfig() []byte { return d.read("routes.json") }

func (d Dir) read(name string) []byte {
	if d.checkOwners("") != nil {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(string(d), name))
	if err != nil {
		return nil
	}
	return raw
}

// replaceFile writes a file of the directory.
func replaceFile(path string, data []byte) error { return atomicfile.Write(path, data, 0o600) }
