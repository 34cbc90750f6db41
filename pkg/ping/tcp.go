package ping

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Connect opens a TCP connection from an address to an address and closes it at once.
// answered tells whether the other side accepted or, if refused is set, refused it. Connect
// waits for three times Pause, in which the kernel tries twice. The error is about the
// socket.
func Connect(ctx context.Context, from, to netip.Addr, port uint16) (answered, refused bool, err error) {
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, false, fmt.Errorf("tcp: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, tcpAddr(from, 0)); err != nil {
		return false, false, fmt.Errorf("tcp: bind %s: %w", from, err)
	}
	failed := unix.Connect(fd, tcpAddr(to, port))
	for end := time.Now().Add(3 * Pause); errors.Is(failed, unix.EINPROGRESS) && ctx.Err() == nil && time.Now().Before(end); {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, _ := unix.Poll(fds, 50); n > 0 {
			code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err != nil {
				return false, false, fmt.Errorf("tcp: %w", err)
			}
			if failed = nil; code != 0 {
				failed = unix.Errno(code)
			}
		}
	}
	refused = errors.Is(failed, unix.ECONNREFUSED)
	return failed == nil || refused, refused, nil
}

func tcpAddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is6() {
		return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
	}
	return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
}
