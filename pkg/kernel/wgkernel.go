package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/rundir"
)

// wgKernel is the name of a link of the kernel's WireGuard, which generic netlink
// configures (linux/wireguard.h). The library wgctrl does the same and makes ovs-gre
// 480 KB larger.
type wgKernel string

// attrs calls each for every netlink attribute in b, with the type without its flags.
func attrs(b []byte, each func(typ uint16, value []byte) error) error {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	for _, a := range list {
		if err := each(a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), a.Value); err != nil {
			return err
		}
	}
	return nil
}

func (w wgKernel) request(command uint8, flags int) (*nl.NetlinkRequest, error) {
	family, err := netlink.GenlFamilyGet(unix.WG_GENL_NAME)
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrNoWireGuard
	}
	if err != nil {
		return nil, fmt.Errorf("generic netlink: %w", translate(err))
	}
	req := nl.NewNetlinkRequest(int(family.ID), flags)
	req.AddData(&nl.Genlmsg{Command: command, Version: unix.WG_GENL_VERSION})
	req.AddData(nl.NewRtAttr(unix.WGDEVICE_A_IFNAME, nl.ZeroTerminated(string(w))))
	return req, nil
}

func (w wgKernel) get(ctx context.Context) (WireGuardDevice, error) {
	s, err := nl.Subscribe(unix.NETLINK_GENERIC) // to nothing: a socket that has no words, for it dumps
	if err != nil {
		return WireGuardDevice{}, fmt.Errorf("netlink: socket: %w", err)
	}
	defer s.Close()
	return query(ctx, &conn{}, func(*netlink.Handle) (WireGuardDevice, error) {
		var dev WireGuardDevice
		req, err := w.request(unix.WG_CMD_GET_DEVICE, unix.NLM_F_DUMP)
		if err != nil {
			return dev, err
		}
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: {Socket: s}}
		msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
		for _, m := range msgs {
			if len(m) < nl.SizeofGenlmsg {
				continue
			}
			if err := attrs(m[nl.SizeofGenlmsg:], dev.parse); err != nil {
				return dev, err
			}
		}
		return dev, err
	})
}

func (d *WireGuardDevice) parse(typ uint16, v []byte) error {
	switch {
	case typ == unix.WGDEVICE_A_PRIVATE_KEY && len(v) == len(d.Private):
		d.Private = rundir.Key(v)
	case typ == unix.WGDEVICE_A_LISTEN_PORT && len(v) == 2:
		d.Port = binary.NativeEndian.Uint16(v)
	case typ == unix.WGDEVICE_A_PEERS:
		return attrs(v, func(_ uint16, v []byte) error {
			var p WireGuardPeer
			if err := attrs(v, p.parse); err != nil {
				return err
			}
			// A peer with more subnets than fit goes on in the next message.
			if n := len(d.Peers); n > 0 && d.Peers[n-1].Key == p.Key {
				d.Peers[n-1].Allowed = append(d.Peers[n-1].Allowed, p.Allowed...)
				return nil
			}
			d.Peers = append(d.Peers, p)
			return nil
		})
	}
	return nil
}

func (p *WireGuardPeer) parse(typ uint16, v []byte) error {
	switch {
	case typ == unix.WGPEER_A_PUBLIC_KEY && len(v) == len(p.Key):
		p.Key = [32]byte(v)
	case typ == unix.WGPEER_A_ENDPOINT:
		p.Endpoint = addrPort(v)
	case typ == unix.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL && len(v) == 2:
		p.Keepalive = binary.NativeEndian.Uint16(v)
	case typ == unix.WGPEER_A_LAST_HANDSHAKE_TIME && len(v) == 16: // struct __kernel_timespec
		if s := int64(binary.NativeEndian.Uint64(v)); s != 0 {
			p.Handshake = time.Unix(s, int64(binary.NativeEndian.Uint64(v[8:])))
		}
	case typ == unix.WGPEER_A_RX_BYTES && len(v) == 8:
		p.Received = binary.NativeEndian.Uint64(v)
	case typ == unix.WGPEER_A_TX_BYTES && len(v) == 8:
		p.Sent = binary.NativeEndian.Uint64(v)
	case typ == unix.WGPEER_A_ALLOWEDIPS:
		return attrs(v, func(_ uint16, v []byte) error {
			var a netip.Addr
			bits := 0
			err := attrs(v, func(typ uint16, v []byte) error {
				switch {
				case typ == unix.WGALLOWEDIP_A_IPADDR:
					a, _ = netip.AddrFromSlice(v)
				case typ == unix.WGALLOWEDIP_A_CIDR_MASK && len(v) == 1:
					bits = int(v[0])
				}
				return nil
			})
			p.Allowed = append(p.Allowed, netip.PrefixFrom(a, bits))
			return err
		})
	}
	return nil
}

// addrPort reads a struct sockaddr_in or sockaddr_in6: family, port, and the
// address at the fourth or eighth byte.
func addrPort(v []byte) netip.AddrPort {
	at, size := 4, 4
	if len(v) == unix.SizeofSockaddrInet6 {
		at, size = 8, 16
	} else if len(v) != unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}
	}
	a, _ := netip.AddrFromSlice(v[at : at+size])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(v[2:]))
}

// sockaddr is the reverse of addrPort.
func sockaddr(a netip.AddrPort) []byte {
	size, at := unix.SizeofSockaddrInet4, 4
	if a.Addr().Is6() {
		size, at = unix.SizeofSockaddrInet6, 8
	}
	b := make([]byte, size)
	binary.NativeEndian.PutUint16(b, uint16(family(a.Addr())))
	binary.BigEndian.PutUint16(b[2:], a.Port())
	copy(b[at:], a.Addr().AsSlice())
	return b
}

// manyAllowed is how many subnets are in one message at most: a netlink attribute has at
// most 65535 bytes, an IPv6 subnet takes 40.
const manyAllowed = 1000

func (w wgKernel) set(c wgConfig) error {
	req, err := w.request(unix.WG_CMD_SET_DEVICE, unix.NLM_F_ACK)
	if err != nil {
		return err
	}
	if c.private != nil {
		req.AddData(nl.NewRtAttr(unix.WGDEVICE_A_PRIVATE_KEY, c.private[:]))
	}
	if c.port != 0 {
		req.AddData(nl.NewRtAttr(unix.WGDEVICE_A_LISTEN_PORT, nl.Uint16Attr(c.port)))
	}
	var more []netip.Prefix
	if p := c.peer; p != nil {
		first := *p
		if len(p.allowed) > manyAllowed {
			first.allowed, more = p.allowed[:manyAllowed], p.allowed[manyAllowed:]
		}
		first.add(req, unix.WGPEER_F_REPLACE_ALLOWEDIPS)
	}
	if _, err := req.Execute(unix.NETLINK_GENERIC, 0); err != nil {
		return translate(err)
	}
	for some := range slices.Chunk(more, manyAllowed) {
		if req, err = w.request(unix.WG_CMD_SET_DEVICE, unix.NLM_F_ACK); err != nil {
			return err
		}
		wgPeerConfig{key: c.peer.key, allowed: some}.add(req, 0)
		if _, err := req.Execute(unix.NETLINK_GENERIC, 0); err != nil {
			return translate(err)
		}
	}
	return nil
}

// add adds the peer to a request. replace is the flag that makes its subnets replace the
// former ones. Attributes in a list have the type 0.
func (p wgPeerConfig) add(req *nl.NetlinkRequest, replace uint32) {
	const nested = unix.NLA_F_NESTED
	flags := uint32(0)
	if p.remove {
		flags |= unix.WGPEER_F_REMOVE_ME
	}
	if p.allowed != nil {
		flags |= replace
	}
	peers := nl.NewRtAttr(unix.WGDEVICE_A_PEERS|nested, nil)
	peer := peers.AddRtAttr(nested, nil)
	peer.AddRtAttr(unix.WGPEER_A_PUBLIC_KEY, p.key[:])
	peer.AddRtAttr(unix.WGPEER_A_FLAGS, nl.Uint32Attr(flags))
	if p.endpoint.IsValid() {
		peer.AddRtAttr(unix.WGPEER_A_ENDPOINT, sockaddr(p.endpoint))
	}
	if p.keepalive != nil {
		peer.AddRtAttr(unix.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, nl.Uint16Attr(*p.keepalive))
	}
	if p.allowed != nil {
		list := peer.AddRtAttr(unix.WGPEER_A_ALLOWEDIPS|nested, nil)
		for _, a := range p.allowed {
			one := list.AddRtAttr(nested, nil)
			one.AddRtAttr(unix.WGALLOWEDIP_A_FAMILY, nl.Uint16Attr(uint16(family(a.Addr()))))
			one.AddRtAttr(unix.WGALLOWEDIP_A_IPADDR, a.Addr().AsSlice())
			one.AddRtAttr(unix.WGALLOWEDIP_A_CIDR_MASK, nl.Uint8Attr(uint8(a.Bits())))
		}
	}
	req.AddData(peers)
}
