package kernel

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netnsPaths are where namespaces are found: those with names, which stay
// without a process, and those of processes.
var netnsPaths = []string{"/run/netns/*", "/run/docker/netns/*", "/proc/[0-9]*/ns/net"}

// NetnsOf opens the namespace that has the other end of the veth pair whose
// end here is called name, and returns that end, too. The error wraps
// fs.ErrNotExist where there is no such link, or its namespace is not to be
// found: it may have a name that is seen nowhere here, and no process.
func NetnsOf(ctx context.Context, name string) (*Netns, Link, error) {
	near, err := LinkByName(ctx, name)
	if err != nil {
		return nil, Link{}, err
	}
	peer, err := withConn(func(c *conn) (int, error) {
		l, err := c.find(ctx, name)
		if err != nil {
			return 0, err
		}
		return l.Attrs().ParentIndex, nil
	})
	if err != nil {
		return nil, Link{}, err
	}
	seen := map[[2]uint64]bool{}
	for _, pattern := range netnsPaths {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			var st unix.Stat_t
			if unix.Stat(path, &st) != nil || seen[[2]uint64{st.Dev, st.Ino}] {
				continue
			}
			seen[[2]uint64{st.Dev, st.Ino}] = true
			if err := ctx.Err(); err != nil {
				return nil, Link{}, err
			}
			n, err := OpenNetns(path)
			if err != nil {
				continue // gone meanwhile, or a file of another kind
			}
			if far, ok := n.endOf(ctx, near.Index, peer); ok {
				return n, far, nil
			}
			_ = n.Close()
		}
	}
	return nil, Link{}, fmt.Errorf("link %s: %w: the namespace of its other end", name, fs.ErrNotExist)
}

// endOf finds the end of a veth pair by its index, and that of the other end,
// which is in the host's namespace.
func (n *Netns) endOf(ctx context.Context, near, peer int) (far Link, ok bool) {
	if host, err := n.IsHost(); err != nil || host {
		return far, false
	}
	_ = n.with(func(c *conn) error {
		links, err := query(ctx, c, (*netlink.Handle).LinkList)
		for _, l := range links {
			if at := l.Attrs(); l.Type() == "veth" && at.ParentIndex == near && at.Index == peer {
				far, ok = c.linkOf(l), true
			}
		}
		return err
	})
	return far, ok
}

// Do calls f on a thread that is in the namespace.
func (n *Netns) Do(f func() error) error { return n.do(f) }
