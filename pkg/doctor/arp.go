package doctor

import (
	"context"
	"encoding/binary"
	stdnet "net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/ping"
)

// duplicateGateway asks on each gateway's link whether somebody else has its
// address (RFC 5227). IPv6 is not asked.
func duplicateGateway(ctx context.Context, p *host) []Finding {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var list []Finding
	for _, n := range p.nets {
		if !n.up {
			continue
		}
		for _, gw := range n.topology.Self.Gateways() {
			if !gw.Is4() || p.linkOf(gw) == "" {
				continue
			}
			link := p.linkOf(gw)
			if n.OVS != nil { // the link to the peers has the address, too
				link = n.gateway
			}
			wg.Go(func() {
				f := askDuplicate(ctx, n, gw, link)
				mu.Lock()
				defer mu.Unlock()
				list = append(list, f)
			})
		}
	}
	wg.Wait()
	return list
}

func askDuplicate(ctx context.Context, n *networkInfo, gw netip.Addr, link string) Finding {
	mac, err := whoHas(ctx, link, gw)
	switch {
	case err != nil:
		return unknown(n.Name(), err)
	case mac != "":
		cmd := "bridge fdb show | grep -i " + mac
		if n.OVS != nil {
			cmd = "ovs-appctl fdb/show " + n.OVS.Bridge + " | grep -i " + mac
		}
		return fail(n.Name(), cmd, "%s has the gateway's address %s too, on link %s", mac, gw, link)
	}
	return ok(n.Name(), "nobody else on %s has the gateway's address %s", link, gw)
}

// arp is an ARP packet for IPv4 on Ethernet (RFC 826).
const (
	arpSize              = 28
	arpRequest, arpReply = 1, 2
)

// whoHas asks twice for an address on a link, as one who has none, and returns
// the MAC address of whoever answers; "" is nobody.
func whoHas(ctx context.Context, name string, a netip.Addr) (string, error) {
	link, err := kernel.LinkByName(ctx, name)
	if err != nil || !link.Up {
		return "", err
	}
	own, err := stdnet.ParseMAC(link.MAC)
	if err != nil || len(own) != 6 {
		return "", err
	}
	proto := uint16(unix.ETH_P_ARP>>8 | unix.ETH_P_ARP&0xff<<8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Index}); err != nil {
		return "", err
	}
	to := &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	for range 2 {
		if err := unix.Sendto(fd, arpProbe(own, a), 0, to); err != nil {
			return "", err
		}
		if mac := awaitReply(ctx, fd, own, a); mac != "" {
			return mac, nil
		}
	}
	return "", nil
}

func arpProbe(own stdnet.HardwareAddr, a netip.Addr) []byte {
	b := make([]byte, arpSize)
	binary.BigEndian.PutUint16(b, 1) // Ethernet
	binary.BigEndian.PutUint16(b[2:], unix.ETH_P_IP)
	b[4], b[5] = 6, 4
	binary.BigEndian.PutUint16(b[6:], arpRequest)
	copy(b[8:], own)
	copy(b[24:], a.AsSlice())
	return b
}

// awaitReply returns the sender of a reply about a that is not ourselves.
func awaitReply(ctx context.Context, fd int, own stdnet.HardwareAddr, a netip.Addr) string {
	b := make([]byte, 256)
	for end := time.Now().Add(ping.Pause); time.Now().Before(end) && ctx.Err() == nil; {
		tv := unix.NsecToTimeval((50 * time.Millisecond).Nanoseconds())
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil || n < arpSize || binary.BigEndian.Uint16(b[6:]) != arpReply {
			continue
		}
		sender := stdnet.HardwareAddr(b[8:14])
		if netip.AddrFrom4([4]byte(b[14:18])) == a && sender.String() != own.String() {
			return sender.String()
		}
	}
	return ""
}
