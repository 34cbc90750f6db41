package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// The permanent neighbour entries of containers carry our protocol, which tells
// them from an administrator's: "ip -d neigh show nud permanent" shows it.
// Kernels before 5.0 do not keep the protocol; there no entry is taken for ours.

// ndaProtocol is NDA_PROTOCOL of linux/neighbour.h.
const ndaProtocol = 12

// AddNeighbours makes a permanent neighbour entry on dev for each address, in
// the place of whatever is known of it. The error wraps fs.ErrNotExist where
// there is no dev.
func AddNeighbours(ctx context.Context, dev, mac string, addrs ...netip.Addr) error {
	hw, err := net.ParseMAC(mac)
	if err != nil || len(addrs) == 0 {
		return err
	}
	link, err := LinkByName(ctx, dev)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range addrs {
		req := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
		req.AddData(&netlink.Ndmsg{Family: addrFamily(a), Index: uint32(link.Index), State: unix.NUD_PERMANENT})
		req.AddData(nl.NewRtAttr(unix.NDA_DST, a.AsSlice()))
		req.AddData(nl.NewRtAttr(unix.NDA_LLADDR, hw))
		req.AddData(nl.NewRtAttr(ndaProtocol, []byte{state.RouteProtocol}))
		if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
			errs = append(errs, fmt.Errorf("neighbour %s on %s: %w", a, dev, err))
		}
	}
	return errors.Join(errs...)
}

// RemoveNeighbours deletes those of Neighbours that pick names. A dev that is not
// there has none.
func RemoveNeighbours(ctx context.Context, dev string, pick func(state.Neigh) bool) error {
	list, err := Neighbours(ctx, dev)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range list {
		if pick(n) {
			errs = append(errs, removeNeighbour(ctx, n))
		}
	}
	return errors.Join(errs...)
}

func removeNeighbour(ctx context.Context, n state.Neigh) error {
	link, err := LinkByName(ctx, n.Dev)
	if err != nil {
		return nil // and the entry with it
	}
	req := nl.NewNetlinkRequest(unix.RTM_DELNEIGH, unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{Family: addrFamily(n.IP), Index: uint32(link.Index)})
	req.AddData(nl.NewRtAttr(unix.NDA_DST, n.IP.AsSlice()))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("neighbour %s on %s: delete: %w", n.IP, n.Dev, err)
	}
	return nil
}

// Neighbours lists the permanent entries of dev that AddNeighbours made; none
// where there is no dev.
func Neighbours(ctx context.Context, dev string) ([]state.Neigh, error) {
	link, err := LinkByName(ctx, dev)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	req.AddData(&netlink.Ndmsg{})
	req.AddData(nl.NewRtAttr(unix.NDA_IFINDEX, nl.Uint32Attr(uint32(link.Index))))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err != nil {
		return nil, fmt.Errorf("neighbours of %s: %w", dev, err)
	}
	var list []state.Neigh
	for _, m := range msgs {
		if n, ok := parseNeighbour(m, dev, uint32(link.Index)); ok {
			list = append(list, n)
		}
	}
	return list, nil
}

func parseNeighbour(m []byte, dev string, index uint32) (state.Neigh, bool) {
	n := state.Neigh{Dev: dev}
	if len(m) < unix.SizeofNdMsg || nl.NativeEndian().Uint32(m[4:]) != index || nl.NativeEndian().Uint16(m[8:])&unix.NUD_PERMANENT == 0 {
		return n, false
	}
	attrs, err := nl.ParseRouteAttr(m[unix.SizeofNdMsg:])
	if err != nil {
		return n, false
	}
	ours := false
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.NDA_DST:
			n.IP, _ = netip.AddrFromSlice(a.Value)
		case unix.NDA_LLADDR:
			n.MAC = net.HardwareAddr(a.Value).String()
		case ndaProtocol:
			ours = len(a.Value) > 0 && a.Value[0] == state.RouteProtocol
		}
	}
	return n, ours && n.IP.IsValid()
}

func addrFamily(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// keepingNeighs calls f, which sets a link's MAC address, and makes the permanent
// neighbours of the link anew, whoever made them: the kernel flushes them, also
// where the address is the same (neigh_changeaddr).
func keepingNeighs(index int, f func() error) error {
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	req.AddData(&netlink.Ndmsg{})
	req.AddData(nl.NewRtAttr(unix.NDA_IFINDEX, nl.Uint32Attr(uint32(index))))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err != nil {
		return fmt.Errorf("neighbours: %w", err)
	}
	if err := f(); err != nil {
		return err
	}
	var errs []error
	for _, m := range msgs {
		if len(m) < unix.SizeofNdMsg || nl.NativeEndian().Uint32(m[4:]) != uint32(index) ||
			nl.NativeEndian().Uint16(m[8:])&unix.NUD_PERMANENT == 0 {
			continue
		}
		again := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
		again.AddRawData(m)
		if _, err := again.Execute(unix.NETLINK_ROUTE, 0); err != nil {
			errs = append(errs, fmt.Errorf("neighbour: make it anew: %w", err))
		}
	}
	return errors.Join(errs...)
}
