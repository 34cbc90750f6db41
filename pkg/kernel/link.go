package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"

	"ovs-gre-cni/pkg/state"

	"golang.org/x/sys/unix"
)

// skipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: statistics are
// most of what the kernel has to say about a link.
const skipStats = 1 << 3

// Link is what the kernel knows of a link.
type Link struct {
	Index int
	Name  string
	// Kind is the type as "ip -d link" shows it; "" is hardware.
	Kind string
	// MAC in lower case with colons.
	MAC string
	// Alias is the link's ifalias; "" is none.
	Alias string
	// Master is the name of the link that it is a port of; "" is none.
	Master string
	MTU    int
	// Up is the administrator's will, LowerUp the carrier.
	Up, LowerUp bool
}

// linkHeader is struct ifinfomsg: of a link by index, with flags to change.
func linkHeader(index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	ne.PutUint32(b[4:], uint32(index))
	ne.PutUint32(b[8:], flags)
	ne.PutUint32(b[12:], change)
	return b
}

func getLink(name string) message {
	return newMessage(unix.RTM_GETLINK, 0, linkHeader(0, 0, 0)).text(unix.IFLA_IFNAME, name).u32(unix.IFLA_EXT_MASK, skipStats)
}

func getLinkByIndex(index int) message {
	return newMessage(unix.RTM_GETLINK, 0, linkHeader(index, 0, 0)).u32(unix.IFLA_EXT_MASK, skipStats)
}

// link asks for one link. The error is a noLink where there is none.
func (c *conn) link(ctx context.Context, name string) (Link, error) {
	if len(name) >= unix.IFNAMSIZ || name == "" {
		return Link{}, noLink(name)
	}
	body, err := c.one(ctx, getLink(name))
	if errors.Is(err, unix.ENODEV) {
		return Link{}, noLink(name)
	}
	if err != nil {
		return Link{}, fmt.Errorf("link %s: %w", name, err)
	}
	return c.parseLink(body)
}

func (c *conn) parseLink(b []byte) (Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, fmt.Errorf("netlink: a link of %d bytes", len(b))
	}
	flags := ne.Uint32(b[8:])
	l := Link{Index: getU32(b[4:]), Up: flags&unix.IFF_UP != 0, LowerUp: flags&unix.IFF_LOWER_UP != 0}
	for typ, v := range attrs(b[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = getText(v)
		case unix.IFLA_MTU:
			l.MTU = getU32(v)
		case unix.IFLA_ADDRESS:
			l.MAC = net.HardwareAddr(v).String()
		case unix.IFLA_IFALIAS:
			l.Alias = getText(v)
		case unix.IFLA_MASTER:
			l.Master = c.name(getU32(v))
		case unix.IFLA_LINKINFO:
			for typ, v := range attrs(v) {
				if typ == unix.IFLA_INFO_KIND {
					l.Kind = getText(v)
				}
			}
		}
	}
	return l, nil
}

// observeLinks adds the wanted links, and what else has the name of an OVS
// bridge.
func observeLinks(ctx context.Context, c *conn, want, have state.Set) error {
	var names []string
	var reqs []message
	asked := map[string]bool{}
	for _, o := range want {
		if name := linkName(o); name != "" && !asked[name] {
			asked[name] = true
			names, reqs = append(names, name), append(reqs, getLink(name))
		}
	}
	var errs []error
	for i, a := range c.exchange(ctx, reqs...) {
		if errors.Is(a.err, unix.ENODEV) {
			continue
		}
		var l Link
		err := a.err
		if err == nil {
			l, err = c.parseLink(a.body)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("link %s: %w", names[i], err))
			continue
		}
		putLink(l, names[i], want, have)
	}
	return errors.Join(errs...)
}

// linkName is the name of the link whose kind or state matters for o.
func linkName(o state.Object) string {
	switch o := o.(type) {
	case state.Link:
		return o.Name
	case state.Bridge:
		if !o.Adopted {
			return o.Name
		}
	}
	return ""
}

func putLink(l Link, name string, want, have state.Set) {
	if o, ok := want[state.Link{Name: name}.ID()]; ok {
		seen := state.Link{Name: name, Up: l.Up, Master: l.Master}
		if o.(state.Link).Master == "" {
			// Nobody cares whose port it is.
			seen.Master = ""
		}
		have.Put(seen)
	}
	if l.Kind == "openvswitch" || l.Kind == "tun" {
		return // OVS's own: its port on the kernel's datapath, its tap on the other
	}
	text := fmt.Sprintf("link %s is of kind %s and no port of OVS", name, l.Kind)
	if l.Kind == "" {
		text = fmt.Sprintf("link %s is hardware and no port of OVS", name)
	}
	if b, ok := want[state.Bridge{Name: name}.ID()].(state.Bridge); ok && !b.Adopted {
		have.Put(state.Foreign{Want: b, Have: text})
	}
}

// setLink is the message that gives a link its state and master.
func setLink(ctx context.Context, c *conn, l state.Link) (message, error) {
	index, err := c.index(l.Name)
	if err != nil {
		return nil, err
	}
	var flags uint32
	if l.Up {
		flags = unix.IFF_UP
	}
	m := newMessage(unix.RTM_SETLINK, 0, linkHeader(index, flags, unix.IFF_UP))
	if l.Master != "" {
		master, err := c.link(ctx, l.Master)
		if err == nil {
			err = c.keepMAC(ctx, master)
		}
		if err != nil {
			return nil, err
		}
		m = m.u32(unix.IFLA_MASTER, master.Index)
	}
	return m, nil
}

// keepMAC gives a link the address that it has. A Linux bridge that nobody has
// given one takes the least of its ports', and another with each port that comes
// or goes; the containers on it know their gateway by the one before.
func (c *conn) keepMAC(ctx context.Context, l Link) error {
	mac, err := net.ParseMAC(l.MAC)
	if err != nil {
		return fmt.Errorf("link %s: %w", l.Name, err)
	}
	if _, err := c.one(ctx, newMessage(unix.RTM_SETLINK, 0, linkHeader(l.Index, 0, 0)).attr(unix.IFLA_ADDRESS, mac)); err != nil {
		return fmt.Errorf("link %s: address %s: %w", l.Name, mac, err)
	}
	return nil
}
