package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"golang.org/x/sys/unix"
)

// ErrIfNameTaken is wrapped by the error of AddVeth about a container that has
// a link of that name already.
var ErrIfNameTaken = errors.New("the container has an interface of that name already")

const (
	vethInfoPeer   = 1 // VETH_INFO_PEER of linux/veth.h
	addrGenModeOff = 1 // IN6_ADDR_GEN_MODE_NONE of linux/if_link.h
)

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
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	m, err := newVeth(v, n.fd)
	if err != nil {
		return err
	}
	if _, err := c.one(ctx, m); err != nil {
		return whoseName(c, v, n, err)
	}
	// What the kernel ignores when it makes a link is a second message. It
	// waits for the answer to the first: that may be EEXIST, and then the link
	// is not ours to change.
	err = quietUp(ctx, c, v)
	if err != nil {
		err = fmt.Errorf("veth %s: %w", v.Name, err)
		return errors.Join(err, c.delLink(context.WithoutCancel(ctx), v.Name))
	}
	return nil
}

// newVeth is the message that makes both ends. The kernel can take up neither
// here: the container's end has no peer yet (ENOTCONN), and the host's would
// speak before it is told to be quiet.
func newVeth(v Veth, netns int) (message, error) {
	end := func(m message, name, mac string) (message, error) {
		m = m.text(unix.IFLA_IFNAME, name)
		if v.MTU != 0 {
			m = m.u32(unix.IFLA_MTU, v.MTU)
		}
		if mac == "" {
			return m, nil
		}
		a, err := net.ParseMAC(mac)
		return m.attr(unix.IFLA_ADDRESS, a), err
	}
	m := newMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(0, 0, 0))
	m, err := end(m, v.Name, v.MAC)
	if err != nil {
		return nil, fmt.Errorf("veth %s: %w", v.Name, err)
	}
	m = m.nest(unix.IFLA_LINKINFO, func(m message) message {
		return m.text(unix.IFLA_INFO_KIND, "veth").nest(unix.IFLA_INFO_DATA, func(m message) message {
			return m.nest(vethInfoPeer, func(m message) message {
				m = append(m, linkHeader(0, 0, 0)...)
				m, err = end(m, v.IfName, v.IfMAC)
				return m.u32(unix.IFLA_NET_NS_FD, netns)
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("veth %s: container end %s: %w", v.Name, v.IfName, err)
	}
	return m, nil
}

// quietUp takes the host end up without an IPv6 address: its chatter would be
// flooded to every port of the bridge.
func quietUp(ctx context.Context, c *conn, v Veth) error {
	m := newMessage(unix.RTM_SETLINK, 0, linkHeader(0, unix.IFF_UP, unix.IFF_UP)).text(unix.IFLA_IFNAME, v.Name)
	if v.Alias != "" {
		m = m.attr(unix.IFLA_IFALIAS, []byte(v.Alias))
	}
	quiet := m.nest(unix.IFLA_AF_SPEC, func(m message) message {
		return m.nest(unix.AF_INET6, func(m message) message {
			return m.u8(unix.IFLA_INET6_ADDR_GEN_MODE, addrGenModeOff)
		})
	})
	_, err := c.one(ctx, quiet)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		// No IPv6 on the host, or not with an MTU this small.
		_, err = c.one(ctx, m)
	}
	return err
}

// whoseName says which of the two names EEXIST is about: the kernel does not.
func whoseName(c *conn, v Veth, n *Netns, err error) error {
	if errors.Is(err, unix.EEXIST) {
		if _, err := c.index(v.Name); err == nil {
			return fmt.Errorf("veth %s: %w", v.Name, fs.ErrExist)
		}
		if has, _ := n.HasLink(context.Background(), v.IfName); has {
			return fmt.Errorf("interface %s: %w", v.IfName, ErrIfNameTaken)
		}
	}
	return fmt.Errorf("veth %s to %s in %s: %w", v.Name, v.IfName, n.path, err)
}

// DelLink deletes a link of this host, and with it the other end of a pair.
// One that is not there is fine.
func DelLink(ctx context.Context, name string) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	return c.delLink(ctx, name)
}

func (c *conn) delLink(ctx context.Context, name string) error {
	_, err := c.one(ctx, newMessage(unix.RTM_DELLINK, 0, linkHeader(0, 0, 0)).text(unix.IFLA_IFNAME, name))
	if err == nil || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("link %s: delete: %w", name, err)
}

// QuietHostEnd keeps the kernel's own stack from answering on a host end: on
// OVS's userspace datapath it gets every frame that OVS gets too.
func QuietHostEnd(name string) error {
	// 8 is "do not reply for all local addresses" (ip-sysctl.rst).
	if err := writeSysctl("net/ipv4/conf/"+name+"/arp_ignore", "8"); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	err := writeSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return nil // without the file there is no IPv6 to disable
}
