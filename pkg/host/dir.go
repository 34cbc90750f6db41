package host

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

	"ovs-gre-cni/pkg/mesh"
	"ovs-gre-cni/pkg/spec"
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
//
// A Dir stays where it is for as long as anything in it does. The zero value is
// that of no network: there is nothing in it, and what would change it, or says
// how it went, wraps spec.ErrInvalid.
type Dir string

// NetworkDir is the directory of a network; that of a name which no network can
// have is the zero Dir.
func NetworkDir(network string) Dir {
	if spec.CheckName(network) != nil {
		return ""
	}
	return Dir(filepath.Join(RunDir, network))
}

// check keeps the name of no network from becoming a path.
func (d Dir) check() error {
	if d == "" {
		return fmt.Errorf("state directory: %w: not the name of a network", spec.ErrInvalid)
	}
	return nil
}

// Exists reports whether the network has left anything here. The directory
// above, which a call that was killed may have left, goes if it is empty.
func (d Dir) Exists() bool {
	if d.check() != nil {
		return false
	}
	if _, err := os.Lstat(string(d)); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	_ = os.Remove(RunDir)
	return false
}

// make makes the directory and reports whether it was not there. Only root can
// write to it or to what is above; anything else of that name is refused.
func (d Dir) make(sub string) (fresh bool, err error) {
	if err := d.check(); err != nil {
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
		if err := trust(dir); err != nil {
			return false, err
		}
	}
	return fresh, nil
}

// trust refuses what is not a directory that only we can write to.
func trust(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !st.IsDir() || !ok || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("state directory %s: %w: want a directory of ours that nobody else can write to", dir, ErrForeign)
	}
	return nil
}

// trusted is nil where the directory, and sub in it, is ours or absent. What
// a stranger has put there is neither believed nor followed.
func (d Dir) trusted(sub string) error {
	if err := d.check(); err != nil {
		return err
	}
	for _, dir := range []string{RunDir, string(d), filepath.Join(string(d), sub)} {
		if err := trust(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// manyTries is more than others can undo in a row what Lock makes; a mount of a
// RunDir that is gone they undo for ever.
const manyTries = 1000

// Lock takes the network's lock, to the exclusion of others or, if shared, of
// exclusive ones, and returns what gives it back. It waits as long as ctx, then
// the error wraps ErrBusy.
func (d Dir) Lock(ctx context.Context, shared bool) (unlock func(), err error) {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	for tries := 0; ; tries++ {
		if _, err := d.make(""); errors.Is(err, fs.ErrNotExist) && tries < manyTries {
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
			return nil, fmt.Errorf("%w: another call holds %s: %w", ErrBusy, f.Name(), err)
		}
		if same(f) {
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

// same reports whether an open file is still the one of that name.
func same(f *os.File) bool {
	open, err1 := f.Stat()
	named, err2 := os.Lstat(f.Name())
	return err1 == nil && err2 == nil && os.SameFile(open, named)
}

// Remove takes the directory away. The caller holds the exclusive lock.
func (d Dir) Remove() error {
	if err := d.check(); err != nil {
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
	if err := d.check(); err != nil {
		return err
	}
	path := filepath.Join(string(d), "persistent")
	if !on {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if _, err := d.make(""); err != nil {
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
	if d.check() != nil {
		return false
	}
	_, err := os.Lstat(filepath.Join(string(d), "persistent"))
	return err == nil
}

// Hand leaves for others what host state was made of: the nodes, which of them
// this host is, and the configuration.
func (d Dir) Hand(nodes []spec.Node, self string, config []byte) error {
	if _, err := d.make(""); err != nil {
		return err
	}
	return errors.Join(
		d.SetMark(""),
		replace(filepath.Join(string(d), "node"), []byte(self)),
		replace(filepath.Join(string(d), "config.json"), config),
		mesh.Store(filepath.Join(string(d), "nodes.json"), nodes))
}

// IsHanded reports whether Hand left just this.
func (d Dir) IsHanded(nodes []spec.Node, self string, config []byte) bool {
	raw, err := mesh.Encode(nodes)
	return err == nil && bytes.Equal(d.read("config.json"), config) && string(d.read("node")) == self && bytes.Equal(d.read("nodes.json"), raw)
}

// Handed returns the nodes and the name of this host's that Hand left. The
// error wraps mesh.ErrNotReady where there are none.
func (d Dir) Handed() (nodes []spec.Node, self string, err error) {
	if err := d.trusted(""); err != nil {
		return nil, "", err
	}
	nodes, err = mesh.Load(filepath.Join(string(d), "nodes.json"))
	if err != nil {
		return nil, "", err
	}
	name, err := os.ReadFile(filepath.Join(string(d), "node"))
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", mesh.ErrNotReady, err)
	}
	return nodes, string(name), nil
}

// SetMark keeps a text that says which state of OVSDB was found to be right for
// what Hand left.
func (d Dir) SetMark(text string) error {
	if err := d.check(); err != nil {
		return err
	}
	return replace(filepath.Join(string(d), "mark"), []byte(text))
}

// Mark returns what SetMark kept since the last Hand, or "".
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

// Drop takes the configuration back that Hand left; the nodes stay for
// whoever still needs them.
func (d Dir) Drop() error {
	if err := d.check(); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(string(d), "config.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// HandRoutes leaves for others what routes were made of.
func (d Dir) HandRoutes(config []byte) error {
	if _, err := d.make(""); err != nil {
		return err
	}
	return replace(filepath.Join(string(d), "routes.json"), config)
}

// Config returns the configuration that Hand left, or nil.
func (d Dir) Config() []byte { return d.read("config.json") }

// RoutesConfig returns the configuration that HandRoutes left, or nil.
func (d Dir) RoutesConfig() []byte { return d.read("routes.json") }

func (d Dir) read(name string) []byte {
	if d.trusted("") != nil {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(string(d), name))
	if err != nil {
		return nil
	}
	return raw
}

// replace writes a file so that a reader sees the old one or the new one.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
