package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// ErrReversePath is wrapped by the error about a packet that the kernel drops
// because the route to its source is not by the link that it came by (rp_filter
// in ip-sysctl.rst).
var ErrReversePath = errors.New("reverse path filter")

// A Query is a look-up of one packet's route, as by "ip route get".
type Query struct {
	// From is the packet's source; the zero Addr leaves it to the kernel.
	From, To netip.Addr
	// In is the link that the packet came by; "" is a packet that the host sends.
	In string
}

// A Way is the answer to a Query: the route that the packet takes.
type Way struct {
	// Dst, Via, Dev, Table and Metric are the route's. Via and Dev are those of the
	// first next hop; Via is the zero Addr where the route has no gateway.
	Dst           netip.Prefix
	Via           netip.Addr
	Dev           string
	Table, Metric int
	// Ours: the route's protocol is state.RouteProtocol.
	Ours bool
	// Local: the packet is for the host itself.
	Local bool
	// MTU is the route's in bytes; 0 is the link's.
	MTU int
	// Text is the route as "ip route" prints it.
	Text string
}

// Route looks up the route of a packet. The error wraps ErrNoRoute where there is
// none, or one that refuses, such as a blackhole, and ErrReversePath where the
// packet is dropped for its source.
func Route(ctx context.Context, q Query) (Way, error) {
	return withConn(func(c *conn) (Way, error) { return c.way(ctx, q) })
}

func (c *conn) way(ctx context.Context, q Query) (Way, error) {
	var in int
	if q.In != "" {
		var err error
		if in, err = c.index(ctx, q.In); err != nil {
			return Way{}, err
		}
	}
	r, err := c.lookup(ctx, q.To, q.From, in)
	if q.In != "" && (errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) && c.reversed(ctx, q)) {
		return Way{}, fmt.Errorf("%w of %s", ErrReversePath, q.In)
	}
	if err != nil {
		return Way{}, lookupError(q.To, err)
	}
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

// reversed reports whether a packet that the kernel refused by EINVAL was refused
// for its source: before Linux 6.14 the errno was EXDEV.
func (c *conn) reversed(ctx context.Context, q Query) bool {
	// The kernel takes the greater of the two: 1 is strict, 2 is loose.
	mode := max(sysctl("net/ipv4/conf/all/rp_filter"), sysctl("net/ipv4/conf/"+q.In+"/rp_filter"))
	if q.To.Is6() || mode != "1" && mode != "2" {
		return false
	}
	back, err := c.way(ctx, Query{To: q.From})
	return errors.Is(err, ErrNoRoute) || err == nil && mode == "1" && back.Dev != q.In && !back.Local
}

// A Neighbour is a neighbour entry of the kernel.
type Neighbour struct {
	// MAC in lower case with colons; "" where it is not known.
	MAC string
	// Permanent: the kernel does not probe it.
	Permanent bool
	// Failed: the kernel has asked for it without an answer.
	Failed bool
}

// NeighbourOf looks up the neighbour entry of an address on a link; the zero
// Neighbour where there is none.
func NeighbourOf(ctx context.Context, dev string, a netip.Addr) (Neighbour, error) {
	return withConn(func(c *conn) (Neighbour, error) { return c.neighbour(ctx, dev, a) })
}

func (c *conn) neighbour(ctx context.Context, dev string, a netip.Addr) (Neighbour, error) {
	index, err := c.index(ctx, dev)
	if err != nil {
		return Neighbour{}, err
	}
	list, err := c.neighs(ctx, index)
	for _, n := range list {
		if addrOf(n.IP) == a {
			return Neighbour{
				MAC: n.HardwareAddr.String(), Permanent: n.State&netlink.NUD_PERMANENT != 0, Failed: n.State&netlink.NUD_FAILED != 0,
			}, nil
		}
	}
	return Neighbour{}, wrap("link "+dev, err)
}
