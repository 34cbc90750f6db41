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

// Link is a link as the kernel has it.
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
	// Lower is the name of the link below it, such as the one under a VLAN, or of the
	// other end of a veth pair; "" is none in this namespace.
	Lower string
	// MTU in bytes.
	MTU int
	// Up is the administrative state, LowerUp whether there is a carrier.
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
	link := Link{
		Index: a.Index, Name: a.Name, Kind: kindOf(l), MAC: a.HardwareAddr.String(), Alias: a.Alias,
		Master: c.name(a.MasterIndex), MTU: a.MTU,
		Up: a.RawFlags&unix.IFF_UP != 0, LowerUp: a.RawFlags&unix.IFF_LOWER_UP != 0,
	}
	if a.NetNsID < 0 && a.ParentIndex != a.Index {
		link.Lower = c.name(a.ParentIndex)
	}
	return link
}

// kindOf is the kind as iproute2 calls it: two kinds have another name in the
// library.
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

// observeLinks adds the wanted links, and links of another kind that have the name
// of a wanted OVS bridge.
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
	text := fmt.Sprintf("link %s is of kind %s", name, l.Kind)
	if l.Kind == "" {
		text = fmt.Sprintf("link %s is hardware", name)
	}
	if o, ok := want[state.Link{Name: name}.ID()].(state.Link); ok && o.MaxMTU != 0 && l.Kind != "bridge" {
		have.Put(state.Foreign{Want: o, Have: text + " and no Linux bridge (linuxBridge)"})
	}
	if l.Kind == "openvswitch" || l.Kind == "tun" {
		return // OVS's own: its port on the kernel's datapath, its tap on the other
	}
	text += " and no port of OVS"
	if b, ok := want[state.Bridge{Name: name}.ID()].(state.Bridge); ok && !b.Adopted {
		have.Put(state.Foreign{Want: b, Have: text})
	}
}

// observedLink is the link as an object, without the attributes that want leaves
// open.
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

// setLink changes the attributes of a link that differ from l. It takes the link
// up last, when all others are right.
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
	if errors.Is(err, unix.EADDRINUSE) { // a WireGuard link opens its UDP port when it goes up
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
	// A Linux bridge without a MAC address set by hand has the lowest of its
	// ports', which changes when ports come and go; the containers on it know
	// their gateway by the one before. Setting it keeps it.
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
