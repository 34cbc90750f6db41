package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// ErrNotNetns is wrapped by the error about a path that is not a network
// namespace.
var ErrNotNetns = errors.New("not a network namespace")

// Netns is a container's network namespace. Its methods enter it on a thread of
// their own: the calling thread stays in its namespace. They may be called
// concurrently. The index of a link is looked up once, so that a Netns is for one
// call of a plugin, in which no link is deleted and made again.
type Netns struct {
	ns ns.NetNS

	mu   sync.Mutex
	conn *conn // made when it is first needed
}

// OpenNetns opens a network namespace by its path. The error wraps
// fs.ErrNotExist where there is nothing, ErrNotNetns where there is something
// else.
func OpenNetns(path string) (*Netns, error) {
	n, err := ns.GetNS(path)
	switch {
	case errors.As(err, new(ns.NSPathNotExistErr)):
		return nil, &fs.PathError{Op: "open network namespace", Path: path, Err: unix.ENOENT}
	case errors.As(err, new(ns.NSPathNotNSErr)):
		return nil, fmt.Errorf("%s: %w", path, ErrNotNetns)
	case err != nil:
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	// GetNS takes namespaces of every kind, and whatever is in procfs.
	if typ, _ := unix.IoctlRetInt(int(n.Fd()), unix.NS_GET_NSTYPE); typ != unix.CLONE_NEWNET {
		_ = n.Close()
		return nil, fmt.Errorf("%s: %w", path, ErrNotNetns)
	}
	return &Netns{ns: n}, nil
}

// Close closes the file and the sockets; the namespace itself stays.
func (n *Netns) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil {
		n.conn.close()
		n.conn = nil
	}
	_ = n.ns.Close() // nothing was written
}

// Path is the path that the namespace was opened by.
func (n *Netns) Path() string { return n.ns.Path() }

// IsHost reports whether it is the namespace of the calling thread.
func (n *Netns) IsHost() (bool, error) {
	here, err := os.Stat("/proc/thread-self/ns/net")
	there, err2 := os.Stat(fmt.Sprintf("/proc/thread-self/fd/%d", n.ns.Fd()))
	if err := errors.Join(err, err2); err != nil {
		return false, fmt.Errorf("network namespace %s: %w", n.ns.Path(), err)
	}
	return os.SameFile(here, there), nil
}

// Do calls f on a thread that is in the namespace. A thread that does not come
// back is not used again.
func (n *Netns) Do(f func() error) error {
	entered := false
	err := n.ns.Do(func(ns.NetNS) error {
		entered = true
		return f()
	})
	if err != nil && !entered {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return err
}

// with calls f with the connection inside the namespace.
func (n *Netns) with(f func(c *conn) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn == nil {
		// netlink.NewHandleAt would leave a thread in the namespace when it fails.
		if err := n.Do(n.dial); err != nil {
			return err
		}
	}
	return f(n.conn)
}

// dial opens the sockets, where they are not, in this thread's namespace: to
// enter it costs two changes of threads.
func (n *Netns) dial() error {
	if n.conn != nil {
		return nil
	}
	c, err := dial()
	if err != nil {
		return err
	}
	if err := c.open(unix.NETLINK_ROUTE); err != nil {
		c.close()
		return err
	}
	n.conn, c.enter = c, n.Do
	return nil
}

// DisableTxChecksum turns the tx checksum offload of a link of the namespace off:
// OVS's userspace datapath computes no checksums, and the receiver drops packets
// without one.
func (n *Netns) DisableTxChecksum(ifName string) error {
	err := n.with(func(c *conn) error {
		return ethtool(c.sockets[unix.NETLINK_ROUTE].Socket.GetFd(), ifName, &ethtoolValue{cmd: unix.ETHTOOL_STXCSUM})
	})
	return wrap("link "+ifName+": tx checksum offload off", err)
}

// HasLink reports whether the namespace has a link of that name.
func (n *Netns) HasLink(ctx context.Context, ifName string) (bool, error) {
	err := n.with(func(c *conn) error {
		_, err := c.find(ctx, ifName)
		return err
	})
	if errors.As(err, new(noLink)) {
		return false, nil
	}
	return err == nil, err
}
