package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	mdlayher "github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// VethPeer is what the kernel says of the other end of a veth pair that is in
// another namespace.
type VethPeer struct {
	// MAC in lower case with colons.
	MAC string
	// MTU in bytes.
	MTU int
	// Addrs but link-local ones.
	Addrs []netip.Addr
}

// VethPeerOf looks at the other end of the pair that has this end here, in
// whatever namespace it is: nobody need know its path (rtnetlink(7),
// IFLA_TARGET_NETNSID; Linux 5.0).
func VethPeerOf(ctx context.Context, name string) (VethPeer, error) {
	var f VethPeer
	h, err := dial()
	if err != nil {
		return f, err
	}
	defer h.close()
	near, err := query(ctx, h, func(h *netlink.Handle) (netlink.Link, error) { return h.LinkByName(name) })
	if err != nil {
		return f, fmt.Errorf("link %s: %w", name, err)
	}
	at := near.Attrs()
	if at.ParentIndex == 0 || at.NetNsID < 0 {
		return f, fmt.Errorf("link %s: its other end is in no namespace that is known here", name)
	}
	// A list of another namespace's addresses is given only to who asks
	// strictly (NETLINK_GET_STRICT_CHK).
	c, err := mdlayher.Dial(unix.NETLINK_ROUTE, &mdlayher.Config{Strict: true})
	if err != nil {
		return f, fmt.Errorf("link %s: %w", name, err)
	}
	defer c.Close()
	if until, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(until)
	} else {
		_ = c.SetDeadline(time.Now().Add(time.Second))
	}
	if f.MAC, f.MTU, err = linkIn(c, at.ParentIndex, at.NetNsID); err == nil {
		f.Addrs, err = addrsIn(c, at.ParentIndex, at.NetNsID)
	}
	if err != nil {
		return f, fmt.Errorf("link %s: its other end: %w", name, err)
	}
	return f, nil
}

// askNetns sends a header and the attribute that names the namespace.
func askNetns(c *mdlayher.Conn, typ, flags uint16, header []byte, attr uint16, netnsID int) ([]mdlayher.Message, error) {
	raw, err := mdlayher.MarshalAttributes([]mdlayher.Attribute{{Type: attr, Data: nlenc.Uint32Bytes(uint32(netnsID))}})
	if err != nil {
		return nil, err
	}
	return c.Execute(mdlayher.Message{
		Header: mdlayher.Header{Type: mdlayher.HeaderType(typ), Flags: mdlayher.Request | mdlayher.HeaderFlags(flags)},
		Data:   append(header, raw...),
	})
}

func linkIn(c *mdlayher.Conn, index, netnsID int) (mac string, mtu int, err error) {
	header := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(header[4:8], uint32(index))
	msgs, err := askNetns(c, unix.RTM_GETLINK, 0, header, unix.IFLA_TARGET_NETNSID, netnsID)
	for _, m := range msgs {
		if len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		attrs, err := mdlayher.UnmarshalAttributes(m.Data[unix.SizeofIfInfomsg:])
		if err != nil {
			return "", 0, err
		}
		for _, a := range attrs {
			switch {
			case a.Type == unix.IFLA_ADDRESS:
				mac = net.HardwareAddr(a.Data).String()
			case a.Type == unix.IFLA_MTU && len(a.Data) == 4:
				mtu = int(binary.NativeEndian.Uint32(a.Data))
			}
		}
	}
	return mac, mtu, err
}

func addrsIn(c *mdlayher.Conn, index, netnsID int) ([]netip.Addr, error) {
	header := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(header[4:8], uint32(index))
	var list []netip.Addr
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		header[0] = family
		msgs, err := askNetns(c, unix.RTM_GETADDR, unix.NLM_F_DUMP, slices.Clone(header), unix.IFA_TARGET_NETNSID, netnsID)
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			if len(m.Data) < unix.SizeofIfAddrmsg || int(binary.NativeEndian.Uint32(m.Data[4:8])) != index {
				continue
			}
			attrs, err := mdlayher.UnmarshalAttributes(m.Data[unix.SizeofIfAddrmsg:])
			if err != nil {
				return nil, err
			}
			// An IPv4 address with a peer has its own in IFA_LOCAL.
			var a netip.Addr
			for _, typ := range []uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS} {
				if i := slices.IndexFunc(attrs, func(a mdlayher.Attribute) bool { return a.Type == typ }); i >= 0 && !a.IsValid() {
					a, _ = netip.AddrFromSlice(attrs[i].Data)
				}
			}
			if a.IsValid() && !a.IsLinkLocalUnicast() {
				list = append(list, a)
			}
		}
	}
	return list, nil
}
