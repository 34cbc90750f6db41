package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// dumpTries is how often a dump is tried that the kernel says was interrupted by
// a change. containernetworking/plugins' netlinksafe tries five times and then
// returns the inconsistent list without an error.
const dumpTries = 20

// The sockets of requests without a Handle get the kernel's texts about requests
// that it refuses. The switch is one for the process. Such a socket must not dump:
// v1.3.1 panics at a dump that is refused with a text.
func init() { nl.EnableErrorMessageReporting = true }

// conn is a netlink.Handle in the network namespace it was made in. A Handle keeps
// its socket open, which makes requests five times as fast as by the functions of
// the library's package. A conn is not for concurrent use.
type conn struct {
	handle *netlink.Handle
	// sockets are those of our own requests, by protocol; open makes them.
	sockets map[int]*nl.SocketHandle
	// enter calls a function on a thread that is in the namespace.
	enter func(func() error) error

	// indexes and names are those of the links that were looked up.
	indexes map[string]int
	names   map[int]string
	// up are the links that configure has taken up.
	up map[int]bool
}

// dial opens a connection in the network namespace of this thread.
func dial() (*conn, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: socket: %w", err)
	}
	here := func(f func() error) error { return f() }
	return &conn{
		handle: h, sockets: map[int]*nl.SocketHandle{}, enter: here, indexes: map[string]int{}, names: map[int]string{}, up: map[int]bool{},
	}, nil
}

// withConn calls f with a connection for this call.
func withConn[T any](f func(c *conn) (T, error)) (answer T, err error) {
	c, err := dial()
	if err != nil {
		return answer, err
	}
	defer c.close()
	return f(c)
}

// doWithConn is withConn without an answer.
func doWithConn(f func(c *conn) error) error {
	_, err := withConn(func(c *conn) (struct{}, error) { return struct{}{}, f(c) })
	return err
}

func (c *conn) close() {
	c.handle.Close()
	for _, s := range c.sockets {
		s.Close()
	}
}

// query reads from the kernel, and repeats a dump that was interrupted by a
// change. It looks at ctx before each try only: the kernel answers before a send
// returns, so there is no wait that ctx could end.
func query[T any](ctx context.Context, c *conn, read func(*netlink.Handle) (T, error)) (T, error) {
	for range dumpTries {
		if err := ctx.Err(); err != nil {
			return *new(T), err
		}
		answer, err := read(c.handle)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return answer, translate(err)
		}
	}
	return *new(T), fmt.Errorf("netlink: the list changed during each of %d attempts to read it: %w", dumpTries, unix.EINTR)
}

// execute makes a request that changes something. A Handle does not get the
// kernel's text about a refusal, so a refused request is repeated by an empty
// Handle, as the functions of the library's package are.
func (c *conn) execute(ctx context.Context, request func(*netlink.Handle) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := request(c.handle)
	if err == nil || errors.Is(err, unix.EEXIST) {
		return translate(err) // EEXIST needs no text
	}
	return translate(c.enter(func() error { return request(&netlink.Handle{}) }))
}

// translate makes an error of the library the errno, with the kernel's text in
// brackets.
func translate(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	if words, ok := strings.CutPrefix(err.Error(), errno.Error()+": "); ok {
		return fmt.Errorf("%w (%s)", errno, words)
	}
	return err
}

// unlessGone returns nil for the errors about deleting an object, or a link's
// object, that does not exist, else err.
func unlessGone(err error) error {
	if errors.As(err, new(noLink)) {
		return nil
	}
	for _, gone := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.ENXIO, unix.EADDRNOTAVAIL} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

// noLink is the error about a link that does not exist. It wraps
// fs.ErrNotExist.
type noLink string

func (n noLink) Error() string        { return fmt.Sprintf("link %s: no such link", string(n)) }
func (n noLink) Is(target error) bool { return target == fs.ErrNotExist }

// index is the index of a link. The error is a noLink where there is none.
func (c *conn) index(ctx context.Context, name string) (int, error) {
	if i, ok := c.indexes[name]; ok {
		return i, nil
	}
	l, err := c.find(ctx, name)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

// indexesOf returns the names of links by their indexes, without links that do
// not exist.
func (c *conn) indexesOf(ctx context.Context, names []string) (map[int]string, error) {
	links := map[int]string{}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		index, err := c.index(ctx, name)
		if errors.As(err, new(noLink)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		links[index] = name
	}
	return links, nil
}

// name is the name of a link; "" where there is none. It asks by an ioctl of
// netdevice(7): rtnetlink answers with all attributes of the link, and waits for
// the lock of changes in progress. Indexes are not asked for so: where there is no
// link of a name, the kernel runs modprobe.
func (c *conn) name(index int) string {
	if name, ok := c.names[index]; ok || index == 0 {
		return name
	}
	if c.open(unix.NETLINK_ROUTE) != nil {
		return ""
	}
	ifr, _ := unix.NewIfreq("") // which is not too long
	ifr.SetUint32(uint32(index))
	if unix.IoctlIfreq(c.sockets[unix.NETLINK_ROUTE].Socket.GetFd(), unix.SIOCGIFNAME, ifr) != nil {
		return ""
	}
	c.indexes[ifr.Name()], c.names[index] = index, ifr.Name()
	return ifr.Name()
}

// remember keeps the name and the index of a link.
func (c *conn) remember(l netlink.Link) netlink.Link {
	c.indexes[l.Attrs().Name], c.names[l.Attrs().Index] = l.Attrs().Index, l.Attrs().Name
	return l
}

// find looks for a link. The error is a noLink where there is none.
func (c *conn) find(ctx context.Context, name string) (netlink.Link, error) {
	if len(name) >= unix.IFNAMSIZ || name == "" {
		return nil, noLink(name)
	}
	l, err := query(ctx, c, func(h *netlink.Handle) (netlink.Link, error) { return h.LinkByName(name) })
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, noLink(name)
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return c.remember(l), nil
}
