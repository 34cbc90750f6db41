// Package rundir is the directory of a network in /run: its lock, the leases of
// its attachments, and the configuration and nodes that host state was last made
// of.
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

// RunDir holds a directory for each network. It is on tmpfs, so that a reboot
// clears it together with what it stands for.
const RunDir = "/run/ovs-gre"

// A Dir is the directory of one network:
//
//	lock            taken around host-wide writes
//	leases/NAME     an attachment of ovs-gre, NAME its port
//	routes/NAME     an attachment of route-sync
//	gone/NAME       a port that DEL could not take out of OVSDB
//	persistent      host state stays when the last container leaves
//	nodes.json      the nodes that host state was last made of,
//	node            which of them this host is,
//	config.json     and the configuration
//	mark            which state of OVSDB was found to be right for these
//	routes.json     the configuration that routes were last made of
//	accept_ra       links of others that go on listening to routers
//	gateways        the gateway addresses that this host has had in the network
//	gateways        the gateway addresses that this host has had in the network
//
// A Dir stays where it is for as long as anything in it does. The zero value is
// that of no network: there is nothing in it, and what would change it, or says
// how it went, wraps config.ErrInvalid.
type Dir string

// NetworkDir is the directory of a network; that of a name which no network can
// have is the zero Dir.
func NetworkDir(network string) Dir {
	if config.CheckName(network) != nil {
		return ""
	}
	return Dir(filepath.Join(RunDir, network))
}

// checkName keeps the name of no network from becoming a path.
func (d Dir) checkName() error {
	if d == "" {
		return fmt.Errorf("state directory: %w: not the name of a network", config.ErrInvalid)
	}
	return nil
}

// Exists reports whether the network has left anything here. The directory
// above, which a call that was killed may have left, goes if it is empty.
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

// create makes the directory and reports whether it was not there. Only root can
// write to it or to what is above; anything else of that name is refused.
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

// checkOwner refuses what is not a directory that only we can write to.
func checkOwner(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !st.IsDir() || !ok || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("state directory %s: %w: want a directory of ours that nobody else can write to", dir, fault.ErrForeign)
	}
	return nil
}

// checkOwners is nil where the directory, and sub in it, is ours or absent. What
// a stranger has put there is neither believed nor followed.
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

// maxTries is more than others can undo in a row what Lock makes; a mount of a
// RunDir that is gone they undo for ever.
const maxTries = 1000

// Lock takes the network's lock, to the exclusion of others or, if shared, of
// exclusive ones, and returns what gives it back. It waits as long as ctx, then
// the error wraps ErrBusy.
func (d Dir) Lock(ctx context.Context, shared bool) (unlock func(), err error) {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	for tries := 0; ; tries++ {
		if _, err := d.create(""); errors.Is(err, fs.ErrNotExist) && tries < maxTries {
			continue // the last network to leave has just removed what is above
		} else if err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(string(d), "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the last one to leave has just removed the directory
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

// Flock takes a lock on an open file, LOCK_EX or LOCK_SH of flock(2), and waits
// for it as long as ctx. On an error, ctx's where time is up, it has closed the
// file, or will: a wait that is given up on goes on in the kernel until the lock is
// free, and is then given back at once.
func Flock(ctx context.Context, f *os.File, how int) error {
	fd := int(f.Fd())
	if err := unix.Flock(fd, how|unix.LOCK_NB); err == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() {
		for {
			if err := unix.Flock(fd, how); !errors.Is(err, unix.EINTR) {
				done <- err
				return
			}
		}
	}()
	select {
	case err := <-done:
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

// isSameFile reports whether an open file is still the one of that name.
func isSameFile(f *os.File) bool {
	open, err1 := f.Stat()
	named, err2 := os.Lstat(f.Name())
	return err1 == nil && err2 == nil && os.SameFile(open, named)
}

// Remove takes the directory away. The caller holds the exclusive lock.
func (d Dir) Remove() error {
	if err := d.checkName(); err != nil {
		return err
	}
	if err := os.RemoveAll(string(d)); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	_ = os.Remove(RunDir) // the last network takes it along
	return nil
}

// SetPersistent says whether host state stays when the last container leaves.
func (d Dir) SetPersistent(on bool) error {
	if err := d.checkName(); err != nil {
		return err
	}
	path := filepath.Join(string(d), "persistent")
	if !on {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
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

// Persistent reports what SetPersistent said last.
func (d Dir) Persistent() bool {
	if d.checkName() != nil {
		return false
	}
	_, err := os.Lstat(filepath.Join(string(d), "persistent"))
	return err == nil
}

// Save leaves for others what host state was made of: the nodes, which of them
// this host is, and the configuration.
func (d Dir) Save(list []config.Node, self string, config []byte) error {
	if _, err := d.create(""); err != nil {
		return err
	}
	return errors.Join(
		d.SetMark(""),
		replaceFile(filepath.Join(string(d), "node"), []byte(self)),
		replaceFile(filepath.Join(string(d), "config.json"), config),
		nodes.Store(filepath.Join(string(d), "nodes.json"), list))
}

// IsSaved reports whether Save left just this.
func (d Dir) IsSaved(nodes []config.Node, self string, conf []byte) bool {
	return bytes.Equal(d.read("config.json"), conf) && string(d.read("node")) == self && bytes.Equal(d.read("nodes.json"), config.EncodeNodes(nodes))
}

// SavedNodes returns the nodes and the name of this host's that Save left. The
// error wraps nodes.ErrNotReady where there are none.
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

// SetMark keeps a text that says which state of OVSDB was found to be right for
// what Save left.
func (d Dir) SetMark(text string) error {
	if err := d.checkName(); err != nil {
		return err
	}
	return replaceFile(filepath.Join(string(d), "mark"), []byte(text))
}

// Mark returns what SetMark kept since the last Save, or "".
func (d Dir) Mark() string { return string(d.read("mark")) }

// AdvanceMark makes a mark that ends in the number before to end in this one;
// 0 is no number. Any other mark it lets be.
func (d Dir) AdvanceMark(to int) error {
	mark, ok := strings.CutSuffix(d.Mark(), " "+strconv.Itoa(to-1))
	if !ok || to == 0 {
		return nil
	}
	return d.SetMark(mark + " " + strconv.Itoa(to))
}

// RemoveConfig takes the configuration back that Save left; the nodes stay for
// whoever still needs them.
func (d Dir) RemoveConfig() error {
	if err := d.checkName(); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(string(d), "config.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SaveRoutesConfig leaves for others what routes were made of.
func (d Dir) SaveRoutesConfig(config []byte) error {
	if _, err := d.create(""); err != nil {
		return err
	}
	return replaceFile(filepath.Join(string(d), "routes.json"), config)
}

// SavedConfig returns the configuration that Save left, or nil.
func (d Dir) SavedConfig() []byte { return d.read("config.json") }

// SavedRoutesConfig returns the configuration that SaveRoutesConfig left, or nil.
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
