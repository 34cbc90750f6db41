package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// watched are the multicast groups of what a network has in the kernel.
var watched = []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}

// Watch calls changed when the kernel says that something in scope was made,
// changed or removed, by whomever: the links AddrLinks and their addresses,
// neighbours on NeighLinks, any route of our protocol. It calls changed too
// when it may have missed something: first of all when the watch stands. It returns when ctx ends, or on an error.
func Watch(ctx context.Context, s Scope, changed func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	defer f.Close()
	// Without a port of its own it would be taken for the kernel, who hears nothing.
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink: watch: %w", err)
	}
	for _, group := range watched {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return fmt.Errorf("netlink: watch: %w", err)
		}
	}
	w := watch{scope: s, links: map[int]string{}}
	for _, name := range slices.Concat(s.AddrLinks, s.NeighLinks) {
		if index, err := linkIndex(fd, name); err == nil {
			w.links[index] = name
		}
	}
	defer context.AfterFunc(ctx, func() { f.Close() })()
	changed() // what happened before the watch stood
	err = w.read(f, changed)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// watch is one call of Watch.
type watch struct {
	scope Scope
	// links are the names of the scope's links by index.
	links map[int]string
}

// read reads datagrams until the file is closed.
func (w *watch) read(f *os.File, changed func()) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, readBuffer)
	for {
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, _, failed = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(failed, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return err
		case errors.Is(failed, unix.ENOBUFS):
			changed() // more came than we read: what it was, nobody knows
			continue
		case errors.Is(failed, unix.EINTR):
			continue
		case failed != nil:
			return fmt.Errorf("netlink: watch: %w", failed)
		}
		if w.concerned(buf[:n]) {
			changed()
		}
	}
}

// concerned reports whether a datagram has a message about something in scope.
func (w *watch) concerned(b []byte) (yes bool) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size, kind := int(ne.Uint32(b)), ne.Uint16(b[4:])
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return true
		}
		if w.concerns(kind, b[unix.NLMSG_HDRLEN:size]) {
			yes = true
		}
		b = b[min(align4(size), len(b)):]
	}
	return yes
}

func (w *watch) concerns(kind uint16, body []byte) bool {
	if len(body) < unix.SizeofIfAddrmsg {
		return false
	}
	index := getU32(body[4:]) // in the headers of all but routes
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.link(kind, index, body)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return slices.Contains(w.scope.AddrLinks, w.links[index])
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return slices.Contains(w.scope.NeighLinks, w.links[index])
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return body[5] == state.RouteProtocol // rtm_protocol
	}
	return false
}

// link also learns the indexes of the scope's links.
func (w *watch) link(kind uint16, index int, body []byte) bool {
	_, known := w.links[index]
	delete(w.links, index)
	if kind == unix.RTM_DELLINK || len(body) < unix.SizeofIfInfomsg {
		return known
	}
	for typ, v := range attrs(body[unix.SizeofIfInfomsg:]) {
		if name := getText(v); typ == unix.IFLA_IFNAME && (slices.Contains(w.scope.AddrLinks, name) || slices.Contains(w.scope.NeighLinks, name)) {
			w.links[index] = name
			return true
		}
	}
	return known // it was renamed
}
