package kernel

// Links are made and taken up here and not by the library's LinkAdd and
// LinkModify: these bring every kind of link that there is, 0.13 MB of a program.

import (
	"context"
	"errors"
	"net"

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

// attrs are the link's attributes as add takes them.
func (l newLink) attrs(add func(nl.NetlinkRequestData)) error {
	add(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(l.name)))
	if l.mtu != 0 {
		add(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(l.mtu))))
	}
	if l.netns != 0 {
		add(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(l.netns))))
	}
	if l.mac == "" {
		return nil
	}
	hw, err := net.ParseMAC(l.mac)
	if err == nil {
		add(nl.NewRtAttr(unix.IFLA_ADDRESS, hw))
	}
	return err
}

// make makes the link. The error is the errno, with the kernel's words.
func (l newLink) make(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	err := l.attrs(req.AddData)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(l.kind))
	if l.peer != nil {
		peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
		nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
		err = errors.Join(err, wrap("container end "+l.peer.name, l.peer.attrs(peer.AddChild)))
	}
	if err != nil {
		return err
	}
	req.AddData(info)
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	return translate(err)
}

// raise takes a link up and gives it an alias; "" leaves it without.
func raise(ctx context.Context, index int, alias string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index, m.Flags, m.Change = int32(index), unix.IFF_UP, unix.IFF_UP
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	req.AddData(m)
	if alias != "" {
		req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return translate(err)
}
