package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNotNetns is wrapped by the error about a path that is no network
// namespace.
var ErrNotNetns = errors.New("not a network namespace")

// Netns is a container's network namespace. Its methods enter it on a thread
// of their own, so that the caller stays where he is. They may be called
// concurrently.
type Netns struct {
	path string
	fd   int

	mu   sync.Mutex
	conn *conn // made when it is first needed
}

// OpenNetns opens a network namespace by its path. The error wraps
// fs.ErrNotExist where there is nothing, ErrNotNetns where there is something
// else.
func OpenNetns(path string) (*Netns, error) {
	// A FIFO must not hold us.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	if !isNetns(fd) {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", path, ErrNotNetns)
	}
	return &Netns{path: path, fd: fd}, nil
}

func isNetns(fd int) bool {
	var s unix.Statfs_t
	if unix.Fstatfs(fd, &s) != nil || s.Type != unix.NSFS_MAGIC {
		return false
	}
	typ, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	// A kernel before 4.11 cannot tell one namespace from another.
	return typ == unix.CLONE_NEWNET || err == unix.ENOTTY
}

// Close closes the namespace; what is in it stays.
func (n *Netns) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil {
		n.conn.close()
		n.conn = nil
	}
	return unix.Close(n.fd)
}

// IsHost reports whether it is the namespace that we are in ourselves.
func (n *Netns) IsHost() (bool, error) {
	var here, there unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &here); err != nil {
		return false, fmt.Errorf("own network namespace: %w", err)
	}
	if err := unix.Fstat(n.fd, &there); err != nil {
		return false, fmt.Errorf("%s: %w", n.path, err)
	}
	return here.Dev == there.Dev && here.Ino == there.Ino, nil
}

// do calls f on a thread that is in the namespace. A thread that does not come
// back is not used again.
func (n *Netns) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		back, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			defer func() { _ = unix.Close(back) }()
			err = unix.Setns(n.fd, unix.CLONE_NEWNET)
		}
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter network namespace %s: %w", n.path, err)
			return
		}
		err = f()
		if unix.Setns(back, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// with calls f with the connection inside the namespace.
func (n *Netns) with(f func(c *conn) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn == nil {
		err := n.do(func() (err error) {
			n.conn, err = dial()
			return err
		})
		if err != nil {
			return err
		}
	}
	return f(n.conn)
}

// DisableTxChecksum makes a link of the namespace compute its own checksums:
// OVS's userspace datapath takes frames as they are, and the receiver drops
// what has none.
func (n *Netns) DisableTxChecksum(ifName string) error {
	return n.with(func(c *conn) error {
		value := ethtoolValue{cmd: unix.ETHTOOL_STXCSUM}
		if err := ethtool(c.fd, ifName, &value); err != nil {
			return fmt.Errorf("link %s: tx checksum offload off: %w", ifName, err)
		}
		return nil
	})
}

// IgnoreRedirects makes a link of the namespace deaf to ICMPv6 redirects. For
// IPv4 a router can be told not to send them, for IPv6 it cannot. A kernel
// without IPv6 has nothing to ignore.
func (n *Netns) IgnoreRedirects(ifName string) error {
	err := n.do(func() error { return writeSysctl("net/ipv6/conf/"+ifName+"/accept_redirects", "0") })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link %s: ignore redirects: %w", ifName, err)
	}
	return nil
}

// ethtoolValue is struct ethtool_value of linux/ethtool.h.
type ethtoolValue struct{ cmd, data uint32 }

func ethtool(fd int, name string, v *ethtoolValue) error {
	ifr := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte // struct ifreq has a union of 24 bytes
	}{data: unsafe.Pointer(v)}
	if copy(ifr.name[:unix.IFNAMSIZ-1], name) != len(name) {
		return unix.ENODEV
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	runtime.KeepAlive(v)
	if errno != 0 {
		return errno
	}
	return nil
}
