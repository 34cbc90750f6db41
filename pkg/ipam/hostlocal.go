package ipam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/rundir"
)

// hostLocalDir is where host-local keeps its files (its backend/disk).
const hostLocalDir = "/var/lib/cni/networks"

// hostLocal is containernetworking's host-local in this process: its
// allocator, its files, its lock, but no exec (about 5 ms of CPU each).
type hostLocal struct {
	Request
	subnets []netip.Prefix
}

func (h hostLocal) config() (*allocator.IPAMConfig, error) {
	conf, args, err := hostLocalConfig(h.Request, h.subnets)
	if err != nil {
		return nil, err
	}
	c, _, err := allocator.LoadIPAMConfig(conf, args)
	if err != nil {
		return nil, fmt.Errorf("%w: ipam (host-local): %w", config.ErrInvalid, err)
	}
	return c, nil
}

// A store is host-local's, its lock taken: by us, because host-local's own Lock
// waits for ever, and its allocator goes on where it fails.
type store struct{ *disk.Store }

// Lock does nothing: the lock is taken.
func (store) Lock() error { return nil }

// Unlock does nothing: what open returned gives the lock back.
func (store) Unlock() error { return nil }

// open waits for the network's store as long as ctx. The error then wraps
// fault.ErrBusy.
func (h hostLocal) open(ctx context.Context) (s store, done func(), err error) {
	if err := config.CheckName(h.Config.Name); err != nil {
		return s, nil, err
	}
	if s.Store, err = disk.New(h.Config.Name, h.Config.IPAM.DataDir); err != nil {
		return s, nil, err
	}
	// As host-local opens it (its backend/disk, and go-filemutex, which locks by
	// flock).
	f, err := os.OpenFile(filepath.Join(h.dataDir(), "lock"), os.O_RDWR|os.O_CREATE, 0o666)
	if err == nil {
		if err = rundir.Flock(ctx, f, unix.LOCK_EX); err != nil {
			err = fmt.Errorf("%w: another process holds the lock %s: %w", fault.ErrBusy, f.Name(), err)
		}
	}
	if err != nil {
		_ = s.Close()
		return s, nil, err
	}
	return s, func() { _ = s.Close(); f.Close() }, nil
}

func (h hostLocal) Add(ctx context.Context) (*current.Result, error) {
	c, err := h.config()
	if err != nil {
		return nil, err
	}
	store, done, err := h.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("host-local: %w", err)
	}
	defer done()
	res := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: c.Routes}
	asked := map[string]net.IP{}
	for _, ip := range c.IPArgs {
		asked[ip.String()] = ip
	}
	for i := range c.Ranges {
		want := take(asked, &c.Ranges[i])
		ip, err := allocator.NewIPAllocator(&c.Ranges[i], store, i).Get(h.ContainerID, h.IfName, want)
		switch {
		case err == nil:
		case want != nil:
			err = refused(err, want, &c.Ranges[i])
		case full(&c.Ranges[i], h.dataDir()):
			err = exhausted(c)
		}
		if err != nil {
			return nil, fmt.Errorf("host-local: range %s: %w", c.Ranges[i].String(), err)
		}
		res.IPs = append(res.IPs, ip)
	}
	for ip := range asked {
		return nil, fmt.Errorf("%w: ipam (host-local): the address %s that was asked for is in no range", config.ErrInvalid, ip)
	}
	if c.ResolvConf != "" {
		if err := readResolvConf(c.ResolvConf, &res.DNS); err != nil {
			return nil, fmt.Errorf("%w: ipam.resolvConf: %w", config.ErrInvalid, err)
		}
	}
	return res, nil
}

// exhausted says that a range has no address left.
func exhausted(c *allocator.IPAMConfig) error {
	if n := len(c.Ranges); n > 1 {
		return fmt.Errorf("%w: no address is left in it, and a container gets one of each of the %d ranges", nodes.ErrNotReady, n)
	}
	return fmt.Errorf("%w: no address is left in it", nodes.ErrNotReady)
}

// refused tells an address that nobody ever gets from one that another
// container has now.
func refused(err error, ip net.IP, set *allocator.RangeSet) error {
	for _, r := range *set {
		if r.Gateway.Equal(ip) {
			return fmt.Errorf("%w: ipam: %w", config.ErrInvalid, err)
		}
	}
	return fmt.Errorf("%w: %w", nodes.ErrNotReady, err)
}

// take removes and returns an address of asked that is in set, if there is one.
func take(asked map[string]net.IP, set *allocator.RangeSet) net.IP {
	for k, ip := range asked {
		if set.Contains(ip) {
			delete(asked, k)
			return ip
		}
	}
	return nil
}

// Del frees by container alone: it needs no ranges, which a runtime may have lost.
func (h hostLocal) Del(ctx context.Context) error {
	return h.inStore(ctx, func(s store) error {
		return errors.Join(s.ReleaseByID(h.ContainerID, h.IfName), h.sweep())
	})
}

// sweep removes the empty files that host-local makes before it writes to
// them. Under the store's lock they are what an ADD that was killed has left:
// they name nobody, and no DEL would ever find them.
func (h hostLocal) sweep() error {
	entries, err := os.ReadDir(h.dataDir())
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err != nil {
			continue
		}
		if st, err := e.Info(); err != nil || st.Size() > 0 || !st.Mode().IsRegular() {
			continue
		}
		errs = append(errs, os.Remove(filepath.Join(h.dataDir(), e.Name())))
	}
	return errors.Join(errs...)
}

// Check goes by address: host-local's own CHECK is content with any one.
func (h hostLocal) Check(_ context.Context, addrs []netip.Addr) error {
	var lost []string
	for _, a := range addrs {
		raw, err := os.ReadFile(disk.GetEscapedPath(h.dataDir(), a.String()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("host-local: %w", err)
		}
		// Files of host-local before 0.8 do not name the interface.
		if by := holder(raw); by.ContainerID != h.ContainerID || (by.IfName != h.IfName && by.IfName != "") {
			lost = append(lost, a.String())
		}
	}
	switch {
	case len(lost) == 0 && len(addrs) > 0:
		return nil
	case len(lost) == len(addrs):
		return fmt.Errorf("%w: host-local has no address for this container", fault.ErrDrift)
	}
	return fmt.Errorf("%w: host-local has not %s for this container any more: others may get it", fault.ErrDrift, strings.Join(lost, ", "))
}

func (h hostLocal) Status(context.Context) error {
	c, err := h.config()
	if err != nil {
		return err
	}
	dir := h.dataDir()
	if err := rundir.CheckWritable(dir); err != nil {
		return fmt.Errorf("host-local: %w", err)
	}
	for i := range c.Ranges {
		if full(&c.Ranges[i], dir) {
			return fmt.Errorf("host-local: range %s: %w", c.Ranges[i].String(), exhausted(c))
		}
	}
	return nil
}

// full reports whether each address of a range set has its file. It stops at
// the first that has not.
func full(set *allocator.RangeSet, dir string) bool {
	for _, r := range *set {
		first, ok1 := netip.AddrFromSlice(r.RangeStart)
		last, ok2 := netip.AddrFromSlice(r.RangeEnd)
		if !ok1 || !ok2 {
			return false
		}
		for a := first.Unmap(); a.Compare(last.Unmap()) <= 0; a = a.Next() {
			if r.Gateway.Equal(a.AsSlice()) {
				continue
			}
			if _, err := os.Lstat(disk.GetEscapedPath(dir, a.String())); err != nil {
				return false
			}
		}
	}
	return true
}

// GC frees what neither keep nor a lease stands for. Leases are read after the
// files: an ADD takes its own before it takes an address, and may have come
// after keep was listed.
func (h hostLocal) GC(ctx context.Context, keep []config.Attachment) error {
	held, err := h.held()
	if err != nil {
		return err
	}
	valid, err := h.leased(func(rundir.Lease) bool { return true })
	if err != nil {
		return err
	}
	for _, a := range keep {
		valid.put(a)
	}
	return h.free(ctx, slices.DeleteFunc(held, valid.has))
}

// free gives addresses back, if the same containers still have them.
func (h hostLocal) free(ctx context.Context, list []Held) error {
	if len(list) == 0 {
		return nil
	}
	return h.inStore(ctx, func(store) error {
		var errs []error
		for _, held := range list {
			raw, err := os.ReadFile(held.Path)
			if err == nil && holder(raw) == held.Attachment {
				err = os.Remove(held.Path)
			}
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
}

// read reads one of host-local's files, unless it is its lock or the last
// address that it gave out.
func (h hostLocal) read(e fs.DirEntry) (Held, bool) {
	ip, err := netip.ParseAddr(e.Name())
	if err != nil {
		return Held{}, false
	}
	path := filepath.Join(h.dataDir(), e.Name())
	raw, err := os.ReadFile(path)
	st, err2 := e.Info()
	if err != nil || err2 != nil {
		return Held{}, false // freed meanwhile
	}
	return Held{IP: ip, Attachment: holder(raw), Since: st.ModTime(), Path: path}, true
}

// holder reads the content of one of host-local's files.
func holder(raw []byte) config.Attachment {
	id, ifname, _ := strings.Cut(strings.TrimSpace(string(raw)), disk.LineBreak)
	return config.Attachment{ContainerID: id, IfName: ifname}
}

// inStore runs f on the network's store, its lock taken, unless there is none.
func (h hostLocal) inStore(ctx context.Context, f func(store) error) error {
	if _, err := os.Stat(h.dataDir()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s, done, err := h.open(ctx)
	if err == nil {
		defer done()
		err = f(s)
	}
	if err != nil {
		return fmt.Errorf("host-local: %w", err)
	}
	return nil
}

func (h hostLocal) dataDir() string {
	dir := h.Config.IPAM.DataDir
	if dir == "" {
		dir = hostLocalDir
	}
	return filepath.Join(dir, h.Config.Name)
}

// maxResolvConf is the most bytes of a resolv.conf that are read. It is a choice.
const maxResolvConf = 1 << 20

// readResolvConf reads a file in the form of resolv.conf(5). It refuses a pipe, which could
// block while the store is locked, and a device, which could have no end.
func readResolvConf(path string, dns *types.DNS) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0][0] == '#' || f[0][0] == ';' {
			continue
		}
		switch f[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, f[1])
		case "domain":
			dns.Domain = f[1]
		case "search":
			dns.Search = append(dns.Search, f[1:]...)
		case "options":
			dns.Options = append(dns.Options, f[1:]...)
		}
	}
	return nil
}
