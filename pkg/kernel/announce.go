package kernel

import (
	"context"
	"net/netip"
	"slices"
)

// Announce tells the segment that the addresses of a link are at mac, which is
// the link's MAC address, so that nobody sends to a former owner of them: by an
// ARP announcement for IPv4 (RFC 5227, section 3), by an unsolicited neighbour
// advertisement for IPv6 (RFC 4861, section 7.2.6). It sends those of the
// families that are in addrs, and nothing where addrs is empty.
//
// The kernel sends them when a link with arp_notify and ndisc_notify
// (ip-sysctl.rst) is given its MAC address again. A packet socket could send
// them, too, but takes 8 to 16 ms to close (synchronize_net in packet_release):
// more than the rest of ADD.
func (n *Netns) Announce(ifName, mac string, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	ctx := context.Background()
	err := n.with(func(c *conn) error {
		index, err := c.index(ctx, ifName)
		if err != nil {
			return err
		}
		if err := n.Do(func() error { return notify(ifName, addrs) }); err != nil {
			return err
		}
		return c.setMAC(ctx, index, mac)
	})
	return wrap("announce on "+ifName, err)
}

// notify sets arp_notify and ndisc_notify of a link. They stay set, as with the
// bridge plugin of containernetworking/plugins.
func notify(ifName string, addrs []netip.Addr) error {
	if slices.ContainsFunc(addrs, netip.Addr.Is4) {
		if err := writeSysctl("net/ipv4/conf/"+ifName+"/arp_notify", "1"); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(addrs, netip.Addr.Is6) {
		return writeSysctl("net/ipv6/conf/"+ifName+"/ndisc_notify", "1")
	}
	return nil
}
