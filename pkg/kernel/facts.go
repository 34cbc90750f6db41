package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoRoute is wrapped by errors about a peer that this host has no route to.
var ErrNoRoute = errors.New("no route")

// Addrs lists all addresses of this host.
func Addrs(ctx context.Context) ([]Addr, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	c.remember()
	list, err := c.addrs(ctx, 0)
	if err != nil {
		return nil, err
	}
	for i, a := range list {
		list[i].Link = c.name(a.Index)
	}
	return list, nil
}

// LocalAddrs lists all addresses of this host, without their links.
func LocalAddrs(ctx context.Context) ([]netip.Addr, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	list, err := c.addrs(ctx, 0)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, len(list))
	for i, a := range list {
		addrs[i] = a.Prefix.Addr()
	}
	return addrs, nil
}

// LinkByName returns a link of this host. The error can be checked with
// errors.Is(err, fs.ErrNotExist).
func LinkByName(ctx context.Context, name string) (Link, error) {
	c, err := dial()
	if err != nil {
		return Link{}, err
	}
	defer c.close()
	return c.link(ctx, name)
}

// LinksByAliasPrefix lists the links of this host whose alias begins with
// prefix. It reads all links: it is for GC, not for ADD.
func LinksByAliasPrefix(ctx context.Context, prefix string) ([]Link, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	bodies, err := c.dump(ctx, newMessage(unix.RTM_GETLINK, 0, linkHeader(0, 0, 0)).u32(unix.IFLA_EXT_MASK, skipStats))
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	var list []Link
	for _, b := range bodies {
		l, err := c.parseLink(b)
		if err != nil {
			return nil, err
		}
		if l.Alias != "" && strings.HasPrefix(l.Alias, prefix) {
			list = append(list, l)
		}
	}
	return list, nil
}

// linksByIndex asks for the links with these indexes; what is gone is left out.
func (c *conn) linksByIndex(ctx context.Context, indexes []int) ([]linkFlags, error) {
	slices.Sort(indexes)
	indexes = slices.Compact(indexes)
	var reqs []message
	for _, i := range indexes {
		reqs = append(reqs, getLinkByIndex(i))
	}
	var list []linkFlags
	for _, a := range c.exchange(ctx, reqs...) {
		if errors.Is(a.err, unix.ENODEV) {
			continue
		}
		if a.err != nil {
			return nil, fmt.Errorf("link: %w", a.err)
		}
		l, err := c.parseLink(a.body)
		if err != nil {
			return nil, err
		}
		list = append(list, linkFlags{l, ne.Uint32(a.body[8:])&unix.IFF_LOOPBACK != 0})
	}
	return list, nil
}

type linkFlags struct {
	Link
	loopback bool
}

// defaultMTU is what is left to assume where there is nothing to ask: Ethernet's
// (RFC 894).
const defaultMTU = 1500

// UnderlayMTU returns the least MTU on the way to the peers: of the links that
// their routes leave by, and of the routes themselves where they have one.
// What the kernel has learned of a path and will forget again does not count.
// Without peers it is that of the link with the address self, or else 1500.
// The error wraps ErrNoRoute and names every peer without a route.
func UnderlayMTU(ctx context.Context, self netip.Addr, peers []netip.Addr) (int, error) {
	c, err := dial()
	if err != nil {
		return 0, err
	}
	defer c.close()
	mtu, indexes, err := c.waysTo(ctx, peers)
	if err != nil {
		return 0, err
	}
	if len(peers) == 0 {
		addrs, err := c.addrs(ctx, 0)
		if err != nil {
			return 0, err
		}
		i := slices.IndexFunc(addrs, func(a Addr) bool { return a.Prefix.Addr() == self })
		if i >= 0 {
			indexes = append(indexes, addrs[i].Index)
		}
	}
	links, err := c.linksByIndex(ctx, indexes)
	if err != nil {
		return 0, err
	}
	for _, l := range links {
		if !l.loopback && (mtu == 0 || l.MTU < mtu) {
			mtu = l.MTU
		}
	}
	if mtu == 0 {
		mtu = defaultMTU
	}
	return mtu, nil
}

// waysTo returns the least MTU of the routes to the peers, 0 where none has
// one, and the links that they leave by.
func (c *conn) waysTo(ctx context.Context, peers []netip.Addr) (mtu int, indexes []int, err error) {
	var errs []error
	for i, a := range c.exchange(ctx, routesTo(peers)...) {
		r, _ := parseRoute(a.body)
		switch {
		case barred(a):
			errs = append(errs, fmt.Errorf("%w to %s", ErrNoRoute, peers[i]))
			continue
		case a.err != nil:
			errs = append(errs, fmt.Errorf("route to %s: %w", peers[i], a.err))
			continue
		}
		indexes = append(indexes, r.oif)
		if r.mtu != 0 && r.cacheExpires == 0 && (mtu == 0 || r.mtu < mtu) {
			mtu = r.mtu
		}
	}
	return mtu, indexes, errors.Join(errs...)
}

// Unrouted returns those of addrs that this host has no route to.
func Unrouted(ctx context.Context, addrs []netip.Addr) ([]netip.Addr, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	var list []netip.Addr
	for i, a := range c.exchange(ctx, routesTo(addrs)...) {
		switch {
		case barred(a):
			list = append(list, addrs[i])
		case a.err != nil:
			return nil, fmt.Errorf("route to %s: %w", addrs[i], a.err)
		}
	}
	return list, nil
}

// routesTo asks for the route to each address.
func routesTo(addrs []netip.Addr) []message {
	reqs := make([]message, len(addrs))
	for i, a := range addrs {
		h := make([]byte, unix.SizeofRtMsg)
		h[0], h[1] = family(a), uint8(a.BitLen())
		reqs[i] = newMessage(unix.RTM_GETROUTE, 0, h).addr(unix.RTA_DST, a)
	}
	return reqs
}

// barred reports whether the answer to a question of routesTo is that there is
// no route, or one that says no.
func barred(a answer) bool {
	if a.err != nil {
		return noRoute(a.err)
	}
	r, ok := parseRoute(a.body)
	return ok && r.typ != unix.RTN_UNICAST && r.typ != unix.RTN_LOCAL
}

// noRoute reports whether a lookup ended in nothing or in a route that says
// no: blackhole is EINVAL, prohibit EACCES (fib_props in net/ipv4).
func noRoute(err error) bool {
	for _, no := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.EACCES} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// Connected lists the subnets of the links that are up, masked and sorted,
// except for those of the links named, of loopback links, and link-local ones.
func Connected(ctx context.Context, except ...string) ([]netip.Prefix, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	addrs, err := c.addrs(ctx, 0)
	if err != nil {
		return nil, err
	}
	on := map[int][]netip.Prefix{}
	var indexes []int
	for _, a := range addrs {
		if !a.Prefix.IsSingleIP() && !a.Prefix.Addr().IsLinkLocalUnicast() && !a.Prefix.Addr().IsLoopback() {
			on[a.Index] = append(on[a.Index], a.Prefix.Masked())
			indexes = append(indexes, a.Index)
		}
	}
	links, err := c.linksByIndex(ctx, indexes)
	if err != nil {
		return nil, err
	}
	var list []netip.Prefix
	for _, l := range links {
		if l.Up && !l.loopback && !slices.Contains(except, l.Name) {
			list = append(list, on[l.Index]...)
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list), nil
}
