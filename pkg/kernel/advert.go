package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Forwarding6 is the switch of IPv6 forwarding as a key of a state.Sysctl.
const Forwarding6 = "net/ipv6/conf/all/forwarding"

func acceptRA(link string) string { return "net/ipv6/conf/" + link + "/accept_ra" }

// sysctl reads a parameter; "" where there is none.
func sysctl(key string) string {
	value, _ := readSysctl(key)
	return value
}

// Forwards6 reports whether the kernel forwards IPv6.
func Forwards6() bool { v := sysctl(Forwarding6); return v != "" && v != "0" }

// Advertised lists the links that have a default route which the kernel made
// of a router advertisement, and drops when it begins to forward: accept_ra is
// 1 there ("accept if forwarding is disabled", ip-sysctl.rst). Where it is 0 a
// daemon listens, and its routes stay.
func Advertised(ctx context.Context) ([]string, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	filter := &netlink.Route{Protocol: unix.RTPROT_RA, Table: unix.RT_TABLE_UNSPEC}
	routes, err := query(ctx, c, func(h *netlink.Handle) ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_V6, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // no IPv6 on this host
	}
	if err != nil {
		return nil, fmt.Errorf("routes by router advertisement: %w", err)
	}
	var links []string
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones != 0 {
				continue
			}
		}
		for _, l := range c.outBy(r) {
			if sysctl(acceptRA(l)) == "1" {
				links = append(links, l)
			}
		}
	}
	slices.Sort(links)
	return slices.Compact(links), nil
}

// KeepAdvertised has a link listen to router advertisements also while the
// kernel forwards.
func KeepAdvertised(link string) error {
	if err := writeSysctl(acceptRA(link), "2"); err != nil {
		return fmt.Errorf("link %s has the default route of IPv6 by router advertisement, which the kernel drops when it begins to forward, "+
			"unless %s is 2: %w", link, acceptRA(link), err)
	}
	return nil
}

// UnkeepAdvertised takes KeepAdvertised back, unless somebody else has changed
// it, or the link is gone.
func UnkeepAdvertised(link string) error {
	if sysctl(acceptRA(link)) != "2" {
		return nil
	}
	if err := writeSysctl(acceptRA(link), "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link %s: accept_ra: %w", link, err)
	}
	return nil
}

// outBy names the links that a route leaves by; one that is gone is left out.
func (c *conn) outBy(r netlink.Route) []string {
	indexes := []int{r.LinkIndex}
	for _, hop := range r.MultiPath {
		indexes = append(indexes, hop.LinkIndex)
	}
	var names []string
	for _, i := range indexes {
		if l, err := c.handle.LinkByIndex(i); i != 0 && err == nil {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}
