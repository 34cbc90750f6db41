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

// Veth is a veth pair to be made: one end on the host, one in a container.
type Veth struct {
	// Name and MAC are the host end's. The kernel chooses a MAC address where it
	// is "", and udev may then change that.
	Name, MAC string
	// IfName and IfMAC are the container end's. The kernel chooses the MAC address
	// where it is "".
	IfName, IfMAC string
	// MTU is that of both ends, in bytes; 0 is the kernel's default.
	MTU int
	// Alias is the host end's ifalias; "" is none.
	Alias string
}

// AddVeth makes a veth pair. The host end is up, and has no IPv6 address that the
// kernel made. The container end is in n and down; Configure takes it up. The
// error wraps fs.ErrExist where the host has a link called Name, and
// ErrIfNameTaken where the container has one called IfName. A pair that cannot be
// completed is deleted.
func AddVeth(ctx context.Context, v Veth, n *Netns) error {
	return doWithConn(func(c *conn) error {
		pair := newLink{name: v.Name, kind: "veth", mtu: v.MTU, mac: v.MAC,
			peer: &newLink{name: v.IfName, mtu: v.MTU, mac: v.IfMAC, netns: int(n.ns.Fd())}}
		if err := c.addLink(ctx, pair); err != nil {
			return whoseName(ctx, c, v, n, err)
		}
		// Neither end can be up from the beginning: the container's has no peer yet
		// then (ENOTCONN), and the host's would send before it has no IPv6 address.
		// The kernel ignores an alias then, too.
		if err := c.quietUp(ctx, v); err != nil {
			err = fmt.Errorf("veth %s: %w", v.Name, err)
			return errors.Join(err, c.delLink(context.WithoutCancel(ctx), v.Name))
		}
		return nil
	})
}

// quietUp takes the host end up without an IPv6 address: the packets that the
// kernel sends for one would be flooded to every port of the bridge.
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
	return c.setUp(ctx, index, v.Alias)
}

// whoseName tells which of the two names EEXIST is about; the kernel does not.
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

// DelLink deletes a link of this host, and with it the other end of a veth pair.
// A link that is not there is fine.
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

// QuietHostEnd keeps the kernel from answering ARP and IPv6 on the host end of a
// veth pair that is a port of OVS's userspace datapath: there the kernel receives
// every frame that OVS receives.
func QuietHostEnd(name string) error {
	// 8 is "do not reply for all local addresses" (ip-sysctl.rst).
	err := writeSysctl("net/ipv4/conf/"+name+"/arp_ignore", "8")
	if err == nil { // without the file there is no IPv6 to disable
		err = unlessGone(writeSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"))
	}
	return wrap("link "+name, err)
}
