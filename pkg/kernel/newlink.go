package kernel

// Links are made and taken up here and not by the library's LinkAdd and
// LinkModify: these bring every kind of link that there is, 0.13 MB of a program.

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A newLink is a link to be made. Zero values are left to the kernel.
type newLink struct {
	name, kind string
	mtu        int
	mac        string
	// netns is an open network namespace for the other end of a pair; 0 is this one.
	netns int
	// peer is the other end of a pair.
	peer *newLink
}

// attrs are the link's attributes. The error is about its MAC address.
func (l newLink) attrs() (list []nl.NetlinkRequestData, err error) {
	list = append(list, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(l.name)))
	if l.mtu != 0 {
		list = append(list, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(l.mtu))))
	}
	if l.netns != 0 {
		list = append(list, nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(l.netns))))
	}
	if l.mac != "" {
		hw, err := net.ParseMAC(l.mac)
		if err != nil {
			return nil, err
		}
		list = append(list, nl.NewRtAttr(unix.IFLA_ADDRESS, hw))
	}
	return list, nil
}

// addLink makes a link.
func (c *conn) addLink(ctx context.Context, l newLink) error {
	attrs, err := l.attrs()
	if err != nil {
		return err
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(l.kind))
	if l.peer != nil {
		peerAttrs, err := l.peer.attrs()
		if err != nil {
			return fmt.Errorf("container end %s: %w", l.peer.name, err)
		}
		peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
		nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
		for _, a := range peerAttrs {
			peer.AddChild(a)
		}
	}
	parts := slices.Concat([]nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC)}, attrs, []nl.NetlinkRequestData{info})
	return c.change(ctx, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...)
}

// setUp takes a link up and gives it an alias; "" leaves it without.
func (c *conn) setUp(ctx context.Context, index int, alias string) error {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index, m.Flags, m.Change = int32(index), unix.IFF_UP, unix.IFF_UP
	parts := []nl.NetlinkRequestData{m}
	if alias != "" {
		parts = append(parts, nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)))
	}
	return c.change(ctx, unix.RTM_NEWLINK, 0, parts...)
}
