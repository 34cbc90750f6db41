package kernel

// This file has what vishvananda/netlink v1.3.1 cannot do, and says until when it
// is needed. Only newlink.go and wgkernel.go make other messages by hand.
//
//   - IFA_PROTO of an address: until the library's next release, whose AddrAdd and
//     AddrList have it.
//   - NDA_PROTOCOL of a neighbour: until Neigh has a field for it.
//   - Links and addresses of a namespace of which only the id is known
//     (IFLA_TARGET_NETNSID, IFA_TARGET_NETNSID): until LinkByIndex and AddrList
//     take one.
//   - The tx checksum offload of a link: for good. safchain/ethtool reads a MiB
//     for it, which is 0.6 ms of every ADD.

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

const (
	// ifaProto is IFA_PROTO of linux/if_addr.h. Kernels before 5.18 do not know
	// it and leave it out; there an address of ours looks like anybody's, so
	// that Prune lets it be.
	ifaProto = 11
	// ndaProtocol is NDA_PROTOCOL of linux/neighbour.h. Kernels before 5.0 do
	// not keep it; there no entry is taken for ours.
	ndaProtocol = 12
)

// raw is a part of a request that is in wire format already.
type raw []byte

func (b raw) Len() int          { return len(b) }
func (b raw) Serialize() []byte { return b }

// open opens the socket for our own requests by a protocol, unless it is open. The
// kernel's texts about refused requests stay off: with them, v1.3.1 panics at a
// dump that is refused.
func (c *conn) open(protocol int) error {
	if c.sockets[protocol] != nil {
		return nil
	}
	return c.enter(func() error {
		s, err := nl.Subscribe(protocol) // to nothing
		if err == nil {
			c.sockets[protocol] = &nl.SocketHandle{Socket: s}
		}
		return wrap("netlink: socket", err)
	})
}

// ask makes a request that reads.
func (c *conn) ask(ctx context.Context, protocol, kind, flags int, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	if err := c.open(protocol); err != nil {
		return nil, err
	}
	return query(ctx, c, func(*netlink.Handle) ([][]byte, error) {
		return request(kind, flags, c.sockets, parts).Execute(protocol, 0)
	})
}

// change makes a request that changes something. The error is as of execute.
func (c *conn) change(ctx context.Context, kind, flags int, parts ...nl.NetlinkRequestData) error {
	if err := c.open(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	return c.execute(ctx, func(h *netlink.Handle) error {
		sockets := c.sockets
		if h != c.handle {
			sockets = nil // the library opens one, with the kernel's texts
		}
		_, err := request(kind, flags|unix.NLM_F_ACK, sockets, parts).Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

func request(kind, flags int, sockets map[int]*nl.SocketHandle, parts []nl.NetlinkRequestData) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets, req.Data = sockets, parts
	return req
}

// newAddr gives a link an address with a protocol; 0 is none.
func (c *conn) newAddr(ctx context.Context, index int, p netip.Prefix, proto uint8) error {
	m := nl.NewIfAddrmsg(family(p.Addr()))
	m.Prefixlen, m.Index = uint8(p.Bits()), uint32(index)
	if p.Addr().Is6() {
		// The configuration says that nobody else has the address, and without
		// duplicate address detection it is good at once.
		m.Flags = unix.IFA_F_NODAD
	}
	return c.change(ctx, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m,
		// The kernel takes the one for the address and the other for the far end
		// of a point-to-point link; ip sends both.
		nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()), nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice()),
		nl.NewRtAttr(ifaProto, nl.Uint8Attr(proto)))
}

// addrs lists the addresses of one link, or of all where index is 0, without
// the links' names.
func (c *conn) addrs(ctx context.Context, index int, parts ...nl.NetlinkRequestData) ([]Addr, error) {
	m := nl.NewIfAddrmsg(unix.AF_UNSPEC)
	msgs, err := c.ask(ctx, unix.NETLINK_ROUTE, unix.RTM_GETADDR, unix.NLM_F_DUMP, append([]nl.NetlinkRequestData{m}, parts...)...)
	list := make([]Addr, 0, len(msgs))
	for _, b := range msgs {
		if a := parseAddr(b); a.Prefix.IsValid() && (index == 0 || index == a.Index) {
			list = append(list, a)
		}
	}
	return list, wrap("addresses", err)
}

// parseAddr reads an address; one that makes no sense has no prefix.
func parseAddr(b []byte) Addr {
	m := nl.DeserializeIfAddrmsg(b)
	a := Addr{Index: int(m.Index)}
	var local, address netip.Addr
	attrs, _ := nl.ParseRouteAttr(b[m.Len():])
	for _, attr := range attrs {
		switch attr.Attr.Type {
		case unix.IFA_LOCAL:
			local = addrOf(attr.Value)
		case unix.IFA_ADDRESS:
			address = addrOf(attr.Value)
		case ifaProto:
			a.Proto = attr.Value[0]
		}
	}
	if !local.IsValid() {
		local = address
	}
	a.Prefix = netip.PrefixFrom(local, int(m.Prefixlen))
	return a
}

// newNeigh makes a permanent neighbour entry with our protocol. It replaces an
// entry for the same address.
func (c *conn) newNeigh(ctx context.Context, index int, a netip.Addr, mac net.HardwareAddr) error {
	return c.change(ctx, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
		&netlink.Ndmsg{Family: uint8(family(a)), Index: uint32(index), State: netlink.NUD_PERMANENT},
		nl.NewRtAttr(unix.NDA_DST, a.AsSlice()), nl.NewRtAttr(unix.NDA_LLADDR, mac),
		nl.NewRtAttr(ndaProtocol, nl.Uint8Attr(state.RouteProtocol)))
}

// A neigh is a neighbour entry, parsed and as the kernel's message.
type neigh struct {
	*netlink.Neigh
	message raw
}

// ours reports whether newNeigh has made the entry.
func (n neigh) ours() bool {
	attrs, _ := nl.ParseRouteAttrAsMap(n.message[unix.SizeofNdMsg:])
	proto := attrs[ndaProtocol].Value
	return len(proto) == 1 && proto[0] == state.RouteProtocol
}

// neighs lists the neighbours on a link, or all where index is 0.
func (c *conn) neighs(ctx context.Context, index int) ([]neigh, error) {
	parts := []nl.NetlinkRequestData{&netlink.Ndmsg{}}
	if index != 0 {
		parts = append(parts, nl.NewRtAttr(unix.NDA_IFINDEX, nl.Uint32Attr(uint32(index))))
	}
	msgs, err := c.ask(ctx, unix.NETLINK_ROUTE, unix.RTM_GETNEIGH, unix.NLM_F_DUMP, parts...)
	var list []neigh
	for _, b := range msgs {
		n, err := netlink.NeighDeserialize(b)
		if err == nil && (index == 0 || index == n.LinkIndex) { // kernels before 4.4 list all
			list = append(list, neigh{n, b})
		}
	}
	return list, wrap("neighbours", err)
}

// addNeigh makes an entry again from the message that neighs read.
func (c *conn) addNeigh(ctx context.Context, n neigh) error {
	return c.change(ctx, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, n.message)
}

// peer looks at a link of another namespace, known by its number here.
func (c *conn) peer(ctx context.Context, netnsID, index int) (l netlink.Link, addrs []Addr, err error) {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index = int32(index)
	id := nl.Uint32Attr(uint32(netnsID))
	msgs, err := c.ask(ctx, unix.NETLINK_ROUTE, unix.RTM_GETLINK, 0, m, nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, id))
	if err != nil || len(msgs) == 0 {
		return nil, nil, errors.Join(err, unix.ENODEV)
	}
	if l, err = netlink.LinkDeserialize(nil, msgs[0]); err != nil {
		return nil, nil, err
	}
	// A list of another namespace's addresses is given only to who asks strictly.
	fd := c.sockets[unix.NETLINK_ROUTE].Socket.GetFd()
	if err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err == nil {
		addrs, err = c.addrs(ctx, index, nl.NewRtAttr(unix.IFA_TARGET_NETNSID, id))
	}
	return l, addrs, err
}

// ethtoolValue is struct ethtool_value of linux/ethtool.h.
type ethtoolValue struct{ cmd, data uint32 }

// ethtool is the ioctl about a link of a socket's namespace.
func ethtool(fd int, name string, v *ethtoolValue) error {
	ifr := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte // struct ifreq has a union of 24 bytes
	}{data: unsafe.Pointer(v)}
	if copy(ifr.name[:unix.IFNAMSIZ-1], name) != len(name) {
		return unix.ENODEV
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	runtime.KeepAlive(v)
	if errno != 0 {
		return errno
	}
	return nil
}
