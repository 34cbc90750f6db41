package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"ovs-gre-cni/pkg/state"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watched are the multicast groups of what a network has in the kernel.
var watched = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
}

// Watch calls changed when something in scope was made, changed or removed: the
// links AddrLinks and their addresses, neighbours on NeighLinks, any route of the
// protocol state.RouteProtocol. It also calls changed when it begins to watch, and
// when it has missed messages. It returns when ctx ends, or on an error.
func Watch(ctx context.Context, s Scope, changed func()) error {
	w := watch{scope: s}
	return subscribe(ctx, watched, w.concerned, changed, func() error {
		return doWithConn(func(c *conn) (err error) {
			w.links, err = c.indexesOf(ctx, slices.Concat(s.AddrLinks, s.NeighLinks))
			return err
		})
	})
}

// WatchLinks calls changed when the kernel says that a link with such a name was
// made, changed or removed; else it is as Watch.
func WatchLinks(ctx context.Context, such func(name string) bool, changed func()) error {
	return subscribe(ctx, []uint{unix.RTNLGRP_LINK}, func(messages []syscall.NetlinkMessage) bool {
		return slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool {
			if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK {
				return false
			}
			l, err := netlink.LinkDeserialize(nil, m.Data)
			return err != nil || such(l.Attrs().Name)
		})
	}, changed, func() error { return nil })
}

// subscribe calls changed when messages of multicast groups are of concern. begin is
// called when none is missed any more.
func subscribe(
	ctx context.Context, groups []uint, concerned func([]syscall.NetlinkMessage) bool, changed func(), begin func() error,
) error {
	// The library's own subscriptions end when more comes than they read.
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return fmt.Errorf("netlink: watch: %w", err)
	}
	defer socket.Close()
	if err := begin(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, socket.Close)()
	changed() // for changes before the subscription
	for {
		messages, from, err := socket.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			changed() // the buffer overflowed, messages are lost
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("netlink: watch: %w", err)
		case from.Pid == nl.PidKernel && concerned(messages):
			changed()
		}
	}
}

// watch is one call of Watch.
type watch struct {
	scope Scope
	// links are the names of the scope's links by index.
	links map[int]string
}

// concerned reports whether one of the messages is about something in scope. It
// reads all of them, because w learns from them which links there are.
func (w *watch) concerned(messages []syscall.NetlinkMessage) (yes bool) {
	for _, m := range messages {
		if w.concerns(m.Header.Type, m.Data) {
			yes = true
		}
	}
	return yes
}

func (w *watch) concerns(kind uint16, body []byte) bool {
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.link(kind, body)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return slices.Contains(w.scope.AddrLinks, w.links[int(nl.DeserializeIfAddrmsg(body).Index)])
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, err := netlink.NeighDeserialize(body)
		if err == nil && kind == unix.RTM_NEWNEIGH && n.Flags&netlink.NTF_EXT_LEARNED != 0 {
			return false // the kernel itself renews an entry that it probes
		}
		return err != nil || slices.Contains(w.scope.NeighLinks, w.links[n.LinkIndex])
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return nl.DeserializeRtMsg(body).Protocol == state.RouteProtocol
	}
	return false
}

// link also learns the indexes of the scope's links.
func (w *watch) link(kind uint16, body []byte) bool {
	l, err := netlink.LinkDeserialize(nil, body)
	if err != nil {
		return true
	}
	index, name := l.Attrs().Index, l.Attrs().Name
	_, known := w.links[index]
	delete(w.links, index)
	if kind == unix.RTM_NEWLINK && (slices.Contains(w.scope.AddrLinks, name) || slices.Contains(w.scope.NeighLinks, name)) {
		w.links[index] = name
		return true
	}
	return known // it was deleted or renamed
}
