package kernel

// What vishvananda/netlink v1.3.1 cannot do. Nothing else of this package puts
// a message or an ioctl together.
//
//   - IFA_PROTO of an address, which says who made it. The library's
//     development branch has it: with the next release AddrAdd and AddrList do.
//   - The tx checksum offload of a link. safchain/ethtool reads a MiB for
//     it, which is 0.6 ms of every ADD: this stays.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ifaProto is IFA_PROTO of linux/if_addr.h. Kernels before 5.18 do not know it
// and leave it out; there an address of ours looks like anybody's, so that
// Prune lets it be.
const ifaProto = 11

// newAddr gives a link an address that says who made it.
func newAddr(ctx context.Context, index int, p netip.Prefix, proto uint8) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := nl.NewIfAddrmsg(family(p.Addr()))
	m.Prefixlen, m.Index, m.Flags = uint8(p.Bits()), uint32(index), addrFlags(p)
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(m)
	// The kernel takes the one for the address and the other for the far end
	// of a point-to-point link; ip sends both.
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(ifaProto, nl.Uint8Attr(proto)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return translate(err)
}

// addrsWithProto lists the addresses of all links, without the links' names.
func (c *conn) addrsWithProto(ctx context.Context) ([]Addr, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE) // to nothing: a socket that has no words, for it dumps
	if err != nil {
		return nil, fmt.Errorf("netlink: socket: %w", err)
	}
	defer s.Close()
	list, err := query(ctx, c, func(*netlink.Handle) ([]Addr, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
		var list []Addr
		var broken error
		err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWADDR, func(b []byte) bool {
			a, err := parseAddr(b)
			broken = errors.Join(broken, err)
			if a.Prefix.IsValid() {
				list = append(list, a)
			}
			return true
		})
		return list, errors.Join(err, broken)
	})
	return list, wrap("addresses", err)
}

func parseAddr(b []byte) (Addr, error) {
	m := nl.DeserializeIfAddrmsg(b)
	attrs, err := nl.ParseRouteAttr(b[m.Len():])
	a := Addr{Index: int(m.Index)}
	var local, address netip.Addr
	for _, attr := range attrs {
		switch attr.Attr.Type {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(attr.Value)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(attr.Value)
		case ifaProto:
			a.Proto = attr.Value[0]
		}
	}
	if !local.IsValid() {
		local = address
	}
	a.Prefix = netip.PrefixFrom(local, int(m.Prefixlen))
	return a, err
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
