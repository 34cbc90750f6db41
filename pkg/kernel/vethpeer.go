package kernel

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// VethPeer is the other end of a veth pair, in another namespace.
type VethPeer struct {
	// MAC in lower case with colons.
	MAC string
	// MTU in bytes.
	MTU int
	// Addrs are its addresses, without link-local ones.
	Addrs []netip.Addr
}

// VethPeerOf reads the other end of the veth pair whose host end is called name.
// The path of its namespace need not be known (IFLA_TARGET_NETNSID, Linux 5.0).
// The error wraps fs.ErrNotExist where there is no link called name.
func VethPeerOf(ctx context.Context, name string) (VethPeer, error) {
	return withConn(func(c *conn) (p VethPeer, err error) {
		near, err := c.find(ctx, name)
		if err != nil {
			return p, err
		}
		at := near.Attrs()
		if at.ParentIndex == 0 || at.NetNsID < 0 {
			return p, fmt.Errorf("link %s: its other end is in no namespace that is known here", name)
		}
		l, addrs, err := c.peer(ctx, at.NetNsID, at.ParentIndex)
		if err != nil {
			return p, fmt.Errorf("link %s: its other end: %w", name, err)
		}
		p.MAC, p.MTU = l.Attrs().HardwareAddr.String(), l.Attrs().MTU
		for _, a := range addrs {
			if !a.Prefix.Addr().IsLinkLocalUnicast() {
				p.Addrs = append(p.Addrs, a.Prefix.Addr())
			}
		}
		return p, nil
	})
}

// netnsPaths are the patterns of namespaces that have names, and of processes.
var netnsPaths = []string{"/run/netns/*", "/run/docker/netns/*", "/proc/[0-9]*/ns/net"}

// NetnsOf opens the namespace of the other end of the veth pair whose host end is
// called name, and returns the other end's name. It looks at the namespaces in
// /run/netns, /run/docker/netns and of all processes. The error wraps
// fs.ErrNotExist where there is no such link, or none of them has its other end.
func NetnsOf(ctx context.Context, name string) (n *Netns, ifName string, err error) {
	err = doWithConn(func(c *conn) error {
		near, err := c.find(ctx, name)
		if err != nil {
			return err
		}
		if n = c.netnsByID(ctx, near.Attrs().NetNsID); n == nil {
			return fmt.Errorf("link %s: %w: the namespace of its other end", name, fs.ErrNotExist)
		}
		return n.with(func(c *conn) error {
			l, err := query(ctx, c, func(h *netlink.Handle) (netlink.Link, error) { return h.LinkByIndex(near.Attrs().ParentIndex) })
			if err == nil {
				ifName = l.Attrs().Name
			}
			return wrap("link "+name+": its other end", err)
		})
	})
	if err != nil && n != nil {
		n.Close()
	}
	return n, ifName, err
}

// netnsByID opens the namespace that has an id in this one; nil is none, as for a
// negative id.
func (c *conn) netnsByID(ctx context.Context, id int) *Netns {
	if id < 0 {
		return nil
	}
	for _, pattern := range netnsPaths {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			n, err := OpenNetns(path)
			if err != nil {
				continue // gone meanwhile, or a file of another kind
			}
			is, err := query(ctx, c, func(h *netlink.Handle) (int, error) { return h.GetNetNsIdByFd(int(n.ns.Fd())) })
			if err == nil && is == id {
				return n
			}
			n.Close()
		}
	}
	return nil
}
