package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrIfNameTaken is wrapped by the error of AddVeth about a container that has
// a link of that name already.
var ErrIfNameTaken = errors.New("the container has an interface of that name already")

// Veth is a pair of links, one end here and the other in a container.
type Veth struct {
	// Name and MAC are the host end's. An empty MAC leaves it to the kernel,
	// and udev may then change it.
	Name, MAC string
	// IfName and IfMAC are the container end's.
	IfName, IfMAC string
	// MTU of both ends.
	MTU int
	// Alias is the host end's ifalias; "" is none.
	Alias string
}

// AddVeth makes a pair of links, the one end in this namespace, up and without
// any IPv6 address of its own making, the other in n and down: Configure takes
// it up. The error wraps fs.ErrExist where the host has a link of that name,
// ErrIfNameTaken where the container does; nothing is left behind.
func AddVeth(ctx context.Context, v Veth, n *Netns) error {
	return doWithConn(func(c *conn) error {
		pair := newLink{name: v.Name, kind: "veth", mtu: v.MTU, mac: v.MAC,
			peer: &newLink{name: v.IfName, mtu: v.MTU, mac: v.IfMAC, netns: int(n.ns.Fd())}}
		if err := pair.make(ctx); err != nil {
			return whoseName(ctx, c, v, n, err)
		}
		// The kernel can take up neither end when it makes them: the container's
		// has no peer yet (ENOTCONN), and the host's would speak before it is told
		// to be quiet. It ignores an alias then too.
		if err := c.quietUp(ctx, v); err != nil {
			err = fmt.Errorf("veth %s: %w", v.Name, err)
			return errors.Join(err, c.delLink(context.WithoutCancel(ctx), v.Name))
		}
		return nil
	})
}

// quietUp takes the host end up without an IPv6 address: its chatter would be
// flooded to every port of the bridge.
func (c *conn) quietUp(ctx context.Context, v Veth) error {
	index, err := c.index(ctx, v.Name)
	if err != nil {
		return err
	}
	end := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}, LinkType: "veth"}
	err = c.execute(ctx, func(h *netlink.Handle) error { return h.LinkSetIP6AddrGenMode(end, nl.IN6_ADDR_GEN_MODE_NONE) })
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) { // no IPv6 on the host, or not with an MTU this small
		return err
	}
	return raise(ctx, index, v.Alias)
}

// whoseName says which of the two names EEXIST is about: the kernel does not.
func whoseName(ctx context.Context, c *conn, v Veth, n *Netns, err error) error {
	if errors.Is(err, unix.EEXIST) {
		if _, err := c.index(ctx, v.Name); err == nil {
			return fmt.Errorf("veth %s: %w", v.Name, fs.ErrExist)
		}
		if has, _ := n.HasLink(ctx, v.IfName); has {
			return fmt.Errorf("interface %s: %w", v.IfName, ErrIfNameTaken)
		}
	}
	return fmt.Errorf("veth %s to %s in %s: %w", v.Name, v.IfName, n.ns.Path(), err)
}

// DelLink deletes a link of this host, and with it the other end of a pair.
// One that is not there is fine.
func DelLink(ctx context.Context, name string) error {
	return doWithConn(func(c *conn) error { return c.delLink(ctx, name) })
}

func (c *conn) delLink(ctx context.Context, name string) error {
	index, err := c.index(ctx, name)
	if err != nil {
		return unlessGone(err)
	}
	err = c.execute(ctx, func(h *netlink.Handle) error { return h.LinkDel(byIndex(index)) })
	return wrap("link "+name+": delete", unlessGone(err))
}

// QuietHostEnd keeps the kernel's own stack from answering on a host end: on
// OVS's userspace datapath it gets every frame that OVS gets too.
func QuietHostEnd(name string) error {
	// 8 is "do not reply for all local addresses" (ip-sysctl.rst).
	err := writeSysctl("net/ipv4/conf/"+name+"/arp_ignore", "8")
	if err == nil { // without the file there is no IPv6 to disable
		err = unlessGone(writeSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"))
	}
	return wrap("link "+name, err)
}
