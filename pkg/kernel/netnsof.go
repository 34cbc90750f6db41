package kernel

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netnsPaths are the patterns of namespaces that have names, and of processes.
var netnsPaths = []string{"/run/netns/*", "/run/docker/netns/*", "/proc/[0-9]*/ns/net"}

// NetnsOf opens the namespace of the other end of the veth pair whose host end is
// called name, and returns that other end, too. It looks at the namespaces in
// /run/netns, /run/docker/netns and of all processes. The error wraps
// fs.ErrNotExist where there is no such link, or none of them has its other end.
func NetnsOf(ctx context.Context, name string) (*Netns, Link, error) {
	near, err := withConn(func(c *conn) (netlink.Link, error) { return c.find(ctx, name) })
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
			if far, ok := n.endOf(ctx, near.Attrs()); ok {
				return n, far, nil
			}
			n.Close()
		}
	}
	return nil, Link{}, fmt.Errorf("link %s: %w: the namespace of its other end", name, fs.ErrNotExist)
}

// endOf finds the other end of a veth pair whose one end, near, is in the host's
// namespace.
func (n *Netns) endOf(ctx context.Context, near *netlink.LinkAttrs) (far Link, ok bool) {
	if host, err := n.IsHost(); err != nil || host {
		return far, false
	}
	_ = n.with(func(c *conn) error {
		links, err := query(ctx, c, (*netlink.Handle).LinkList)
		for _, l := range links {
			if at := l.Attrs(); l.Type() == "veth" && at.ParentIndex == near.Index && at.Index == near.ParentIndex {
				far, ok = c.linkOf(l), true
			}
		}
		return err
	})
	return far, ok
}
