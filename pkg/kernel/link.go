package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"ovs-gre-cni/pkg/state"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is what the kernel knows of a link.
type Link struct {
	Index int
	Name  string
	// Kind is the type as "ip -d link" shows it; "" is hardware.
	Kind string
	// MAC in lower case with colons; "" is none, or all zeros.
	MAC string
	// Alias is the link's ifalias; "" is none.
	Alias string
	// Master is the name of the link that it is a port of; "" is none.
	Master string
	MTU    int
	// Up is the administrator's will, LowerUp the carrier.
	Up, LowerUp bool
}

// link asks for one link. The error is a noLink where there is none.
func (c *conn) link(ctx context.Context, name string) (Link, error) {
	l, err := c.find(ctx, name)
	if err != nil {
		return Link{}, err
	}
	return c.linkOf(l), nil
}

func (c *conn) linkOf(l netlink.Link) Link {
	a := l.Attrs()
	return Link{
		Index: a.Index, Name: a.Name, Kind: kindOf(l), MAC: a.HardwareAddr.String(), Alias: a.Alias,
		Master: c.name(a.MasterIndex), MTU: a.MTU,
		Up: a.RawFlags&unix.IFF_UP != 0, LowerUp: a.RawFlags&unix.IFF_LOWER_UP != 0,
	}
}

// kindOf is the kind as iproute2 calls it: the library has two names of its
// own.
func kindOf(l netlink.Link) string {
	switch kind := l.Type(); kind {
	case "device":
		return ""
	case "tuntap":
		return "tun"
	default:
		return kind
	}
}

// observeLinks adds the wanted links, and what else has the name of an OVS
// bridge.
func observeLinks(ctx context.Context, c *conn, want, have state.Set) error {
	var errs []error
	asked := map[string]bool{"": true}
	for _, o := range want {
		name := linkName(o)
		if asked[name] {
			continue
		}
		asked[name] = true
		l, err := c.link(ctx, name)
		switch {
		case errors.As(err, new(noLink)):
		case err != nil:
			errs = append(errs, err)
		default:
			putLink(l, name, want, have)
		}
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
		have.Put(observedLink(l, o.(state.Link)))
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

// observedLink is the link as an object, without what nobody cares about.
func observedLink(l Link, want state.Link) state.Link {
	seen := state.Link{Name: want.Name, Up: l.Up}
	if want.Master != "" {
		seen.Master = l.Master
	}
	if want.MTU != 0 {
		seen.MTU = l.MTU
	}
	if want.MaxMTU != 0 {
		seen.MaxMTU = max(l.MTU, want.MaxMTU)
	}
	if want.MAC != "" {
		seen.MAC = l.MAC
	}
	if strings.EqualFold(want.MAC, l.MAC) {
		seen.MAC = want.MAC
	}
	return seen
}

// setLink gives a link what is wanted of it and what it has not. The link
// goes up last, and when it is all that it should be.
func (c *conn) setLink(ctx context.Context, l state.Link) error {
	have, err := c.link(ctx, l.Name)
	if err != nil {
		return err
	}
	if l.MAC != "" && !strings.EqualFold(l.MAC, have.MAC) {
		if err := c.setMAC(ctx, have.Index, l.MAC); err != nil {
			return err
		}
	}
	link, mtu := byIndex(have.Index), l.MTU
	if l.MaxMTU != 0 && have.MTU > l.MaxMTU {
		mtu = l.MaxMTU
	}
	if mtu != 0 && mtu != have.MTU {
		if err := c.execute(ctx, func(h *netlink.Handle) error { return h.LinkSetMTU(link, mtu) }); err != nil {
			return fmt.Errorf("MTU %d: %w", mtu, err)
		}
	}
	if l.Master != "" && l.Master != have.Master {
		if err := c.setMaster(ctx, link, l.Master); err != nil {
			return err
		}
	}
	err = c.execute(ctx, func(h *netlink.Handle) error {
		if l.Up {
			return h.LinkSetUp(link)
		}
		return h.LinkSetDown(link)
	})
	if errors.Is(err, unix.EADDRINUSE) { // WireGuard listens from now on
		return fmt.Errorf("its UDP port is another's on this host (tunnel.port): %w", err)
	}
	return err
}

// byIndex is a link for a request about it.
func byIndex(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func (c *conn) setMaster(ctx context.Context, l netlink.Link, name string) error {
	master, err := c.link(ctx, name)
	if err != nil {
		return err
	}
	// A Linux bridge that nobody has given an address takes the least of its
	// ports', and another with each port that comes or goes; the containers on
	// it know their gateway by the one before.
	if err := c.keepingNeighs(ctx, master.Index, func() error { return c.setMAC(ctx, master.Index, master.MAC) }); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return c.execute(ctx, func(h *netlink.Handle) error { return h.LinkSetMasterByIndex(l, master.Index) })
}

func (c *conn) setMAC(ctx context.Context, index int, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	err = c.execute(ctx, func(h *netlink.Handle) error { return h.LinkSetHardwareAddr(byIndex(index), hw) })
	return wrap("address "+mac, err)
}
