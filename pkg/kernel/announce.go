package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Announce tells the segment that addrs are at mac, so that nobody sends to a
// former owner: an ARP announcement for an IPv4 address (RFC 5227, section 3),
// an unsolicited neighbour advertisement for an IPv6 one (RFC 4861, section
// 7.2.6).
func (n *Netns) Announce(ifName, mac string, addrs []netip.Addr) error {
	hw, err := net.ParseMAC(mac)
	if err != nil || len(hw) != 6 {
		return fmt.Errorf("announce on %s: %q is not an Ethernet address", ifName, mac)
	}
	err = n.do(func() error {
		// Protocol 0: it only sends.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		index, err := linkIndex(fd, ifName)
		if err != nil {
			return err
		}
		var errs []error
		for _, a := range addrs {
			err := unix.Sendto(fd, announcement([6]byte(hw), a), 0, &unix.SockaddrLinklayer{Ifindex: index})
			errs = append(errs, wrap(a.String(), err))
		}
		return errors.Join(errs...)
	})
	return wrap("announce on "+ifName, err)
}

func announcement(mac [6]byte, a netip.Addr) []byte {
	if a.Is4() {
		return arpAnnouncement(mac, a)
	}
	return advertisement(mac, a)
}

// arpAnnouncement is a broadcast request for the own address (RFC 826).
func arpAnnouncement(mac [6]byte, a netip.Addr) []byte {
	b := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	b = append(b, mac[:]...)
	b = append(b, 0x08, 0x06)                                    // EtherType ARP
	b = append(b, 0, 1, 0x08, 0x00, 6, 4, 0, 1)                  // Ethernet, IPv4, their lengths, request
	b = append(append(b, mac[:]...), a.AsSlice()...)             // sender
	return append(append(b, make([]byte, 6)...), a.AsSlice()...) // target: nobody yet, the same address
}

// advertisement goes to all nodes (ff02::1) with the override flag and the
// target's link-layer address.
func advertisement(mac [6]byte, a netip.Addr) []byte {
	all := netip.MustParseAddr("ff02::1").As16()
	src := a.As16()
	icmp := []byte{136, 0, 0, 0, 0x20, 0, 0, 0} // type, code, checksum, override
	icmp = append(icmp, src[:]...)
	icmp = append(icmp, 2, 1) // option target link-layer address, of 8 bytes
	icmp = append(icmp, mac[:]...)

	// The pseudo-header of RFC 8200, section 8.1.
	pseudo := append(append(append([]byte{}, src[:]...), all[:]...), 0, 0, 0, byte(len(icmp)), 0, 0, 0, 58)
	sum := checksum(append(pseudo, icmp...))
	icmp[2], icmp[3] = byte(sum>>8), byte(sum)

	b := []byte{0x33, 0x33, 0, 0, 0, 1} // RFC 2464, section 7
	b = append(append(b, mac[:]...), 0x86, 0xdd)
	b = append(b, 0x60, 0, 0, 0, 0, byte(len(icmp)), 58, 255) // version, length, ICMPv6, hop limit
	b = append(append(b, src[:]...), all[:]...)
	return append(b, icmp...)
}

// checksum is the Internet checksum of an even number of bytes (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
