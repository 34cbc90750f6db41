package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addrs lists all addresses of this host, with the names of their links.
func Addrs(ctx context.Context) ([]Addr, error) {
	return withConn(func(c *conn) ([]Addr, error) {
		list, err := c.addrs(ctx, 0)
		for i, a := range list {
			list[i].Link = c.name(a.Index)
		}
		return list, err
	})
}

// LocalAddrs lists all addresses of this host without their links, which makes it
// cheaper than Addrs.
func LocalAddrs(ctx context.Context) ([]netip.Addr, error) {
	return withConn(func(c *conn) ([]netip.Addr, error) {
		list, err := c.addrs(ctx, 0)
		addrs := make([]netip.Addr, len(list))
		for i, a := range list {
			addrs[i] = a.Prefix.Addr()
		}
		return addrs, err
	})
}

// LinkByName returns a link of this host. The error wraps fs.ErrNotExist where
// there is none.
func LinkByName(ctx context.Context, name string) (Link, error) {
	return withConn(func(c *conn) (Link, error) { return c.link(ctx, name) })
}

// Links lists the links of this host.
func Links(ctx context.Context) ([]Link, error) { return linksWith(ctx, "") }

// LinksByAliasPrefix lists the links of this host whose alias begins with
// prefix. It reads all links: it is for GC, not for ADD.
func LinksByAliasPrefix(ctx context.Context, prefix string) ([]Link, error) {
	return linksWith(ctx, prefix)
}

func linksWith(ctx context.Context, aliasPrefix string) ([]Link, error) {
	return withConn(func(c *conn) (list []Link, err error) {
		links, err := query(ctx, c, (*netlink.Handle).LinkList)
		for _, l := range links {
			c.remember(l)
		}
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Alias, aliasPrefix) {
				list = append(list, c.linkOf(l))
			}
		}
		return list, wrap("links", err)
	})
}

// linksByIndex returns the links with these indexes, without loopback links and
// those that do not exist.
func (c *conn) linksByIndex(ctx context.Context, indexes []int) ([]Link, error) {
	slices.Sort(indexes)
	var list []Link
	for _, index := range slices.Compact(indexes) {
		l, err := query(ctx, c, func(h *netlink.Handle) (netlink.Link, error) { return h.LinkByIndex(index) })
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("link: %w", err)
		}
		if l.Attrs().RawFlags&unix.IFF_LOOPBACK == 0 {
			list = append(list, c.linkOf(l))
		}
	}
	return list, nil
}

// Connected lists the subnets of the links that are up, masked and sorted,
// except for those of the links named, of loopback links, and link-local ones.
func Connected(ctx context.Context, except ...string) ([]netip.Prefix, error) {
	return withConn(func(c *conn) (list []netip.Prefix, err error) {
		addrs, err := c.addrs(ctx, 0)
		if err != nil {
			return nil, err
		}
		on := map[int][]netip.Prefix{}
		for _, a := range addrs {
			if !a.Prefix.IsSingleIP() && !a.Prefix.Addr().IsLinkLocalUnicast() && !a.Prefix.Addr().IsLoopback() {
				on[a.Index] = append(on[a.Index], a.Prefix.Masked())
			}
		}
		links, err := c.linksByIndex(ctx, slices.Collect(maps.Keys(on)))
		for _, l := range links {
			if l.Up && !slices.Contains(except, l.Name) {
				list = append(list, on[l.Index]...)
			}
		}
		slices.SortFunc(list, netip.Prefix.Compare)
		return slices.Compact(list), err
	})
}
