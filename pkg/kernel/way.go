package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// ErrReversePath is wrapped by the error about a packet that the kernel drops
// because its source would not be reached by the link that it came by
// (rp_filter in ip-sysctl.rst).
var ErrReversePath = errors.New("reverse path filter")

// A Query is about one packet, as "ip route get" asks.
type Query struct {
	// From is the packet's source; the zero Addr leaves it to the kernel.
	From, To netip.Addr
	// In is the link that it came by; "" is a packet of the host's own.
	In string
}

// A Way is the route that a packet takes.
type Way struct {
	// Dst, Via, Dev, Table and Metric are the route's; of several next hops
	// they are the first one's. Via is the zero Addr on-link.
	Dst           netip.Prefix
	Via           netip.Addr
	Dev           string
	Table, Metric int
	// Ours: it carries the protocol of routes that are made here.
	Ours bool
	// Local: the packet is for the host itself.
	Local bool
	// MTU is the route's in bytes; 0 leaves it to the link.
	MTU int
	// Text is the route as "ip route" prints it.
	Text string
}

// Route looks up the route of a packet. The error wraps ErrNoRoute where there
// is none, or one that says no, and ErrReversePath where the packet is dropped
// for its source.
func Route(ctx context.Context, q Query) (Way, error) {
	return withConn(func(c *conn) (Way, error) { return c.way(ctx, q) })
}

// Route is as the function of that name, inside the namespace.
func (n *Netns) Route(ctx context.Context, q Query) (w Way, err error) {
	err = n.with(func(c *conn) error {
		w, err = c.way(ctx, q)
		return err
	})
	return w, err
}

func (c *conn) way(ctx context.Context, q Query) (Way, error) {
	opts := &netlink.RouteGetOptions{FIBMatch: true}
	if q.From.IsValid() {
		opts.SrcAddr = net.IP(q.From.AsSlice())
	}
	if q.In != "" {
		index, err := c.index(ctx, q.In)
		if err != nil {
			return Way{}, err
		}
		opts.IifIndex = index
	}
	found, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Route, error) {
		return h.RouteGetWithOptions(q.To.AsSlice(), opts)
	})
	switch {
	case q.In != "" && (errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) && c.reversed(ctx, q)):
		return Way{}, fmt.Errorf("%w of %s", ErrReversePath, q.In)
	case noRoute(err), err == nil && len(found) == 0:
		return Way{}, fmt.Errorf("%w to %s", ErrNoRoute, q.To)
	case err != nil:
		return Way{}, fmt.Errorf("route to %s: %w", q.To, err)
	}
	r := &found[0]
	hop := hops(r)[0]
	w := Way{
		Dst: prefix(r.Dst), Via: via(hop), Dev: c.name(hop.LinkIndex), Table: r.Table, Metric: r.Priority,
		Ours: r.Protocol == state.RouteProtocol, Local: r.Type == unix.RTN_LOCAL, MTU: r.MTU, Text: c.text(r),
	}
	if r.Type != unix.RTN_UNICAST && !w.Local {
		return w, fmt.Errorf("%w to %s: %s", ErrNoRoute, q.To, w.Text)
	}
	return w, nil
}

// reversed reports whether a refused packet is refused for its source: the
// kernel says EXDEV of it, and since Linux 6.14 EINVAL as of a blackhole.
func (c *conn) reversed(ctx context.Context, q Query) bool {
	// The kernel takes the greater of the two: 1 is strict, 2 is loose.
	mode := max(sysctl("net/ipv4/conf/all/rp_filter"), sysctl("net/ipv4/conf/"+q.In+"/rp_filter"))
	if q.To.Is6() || mode != "1" && mode != "2" {
		return false
	}
	back, err := c.way(ctx, Query{To: q.From})
	return errors.Is(err, ErrNoRoute) || err == nil && mode == "1" && back.Dev != q.In && !back.Local
}

// A Neighbour is what the kernel knows of an address on a link.
type Neighbour struct {
	// MAC in lower case with colons; "" where it is not known.
	MAC string
	// Permanent: the kernel does not ask whether it is so.
	Permanent bool
	// Failed: the kernel has asked, and nobody has answered.
	Failed bool
}

// NeighbourOf looks up the neighbour entry of an address on a link; the zero
// Neighbour where there is none.
func NeighbourOf(ctx context.Context, dev string, a netip.Addr) (Neighbour, error) {
	return withConn(func(c *conn) (Neighbour, error) { return c.neighbour(ctx, dev, a) })
}

// NeighbourOf is as the function of that name, inside the namespace.
func (n *Netns) NeighbourOf(ctx context.Context, dev string, a netip.Addr) (e Neighbour, err error) {
	err = n.with(func(c *conn) error {
		e, err = c.neighbour(ctx, dev, a)
		return err
	})
	return e, err
}

func (c *conn) neighbour(ctx context.Context, dev string, a netip.Addr) (Neighbour, error) {
	index, err := c.index(ctx, dev)
	if err != nil {
		return Neighbour{}, err
	}
	list, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Neigh, error) { return h.NeighList(index, family(a)) })
	if err != nil {
		return Neighbour{}, fmt.Errorf("neighbours of %s: %w", dev, err)
	}
	for _, k := range list {
		if addrOf(k.IP) != a || k.LinkIndex != index {
			continue
		}
		return Neighbour{
			MAC: k.HardwareAddr.String(), Permanent: k.State&netlink.NUD_PERMANENT != 0, Failed: k.State&netlink.NUD_FAILED != 0,
		}, nil
	}
	return Neighbour{}, nil
}
