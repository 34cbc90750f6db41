package kernel

import (
	"context"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Forwarding6 is the switch of IPv6 forwarding as a key of a state.Sysctl.
const Forwarding6 = "net/ipv6/conf/all/forwarding"

func acceptRA(link string) string { return "net/ipv6/conf/" + link + "/accept_ra" }

// sysctl reads a sysctl; "" where there is none.
func sysctl(key string) string {
	value, _ := readSysctl(key)
	return value
}

// Forwards6 reports whether the kernel forwards IPv6.
func Forwards6() bool { v := sysctl(Forwarding6); return v != "" && v != "0" }

// Advertised lists the links that have an IPv6 default route by a router
// advertisement which the kernel drops when it begins to forward: those whose
// accept_ra is 1 ("accept if forwarding is disabled", ip-sysctl.rst). Links with
// 0 have such routes from a daemon; these stay.
func Advertised(ctx context.Context) ([]string, error) {
	return withConn(func(c *conn) (links []string, err error) {
		routes, err := c.routes(ctx, netlink.FAMILY_V6, unix.RT_TABLE_UNSPEC, unix.RTPROT_RA)
		for i := range routes {
			if prefix(routes[i].Dst).Bits() > 0 {
				continue
			}
			for _, h := range hops(&routes[i]) {
				if name := c.name(h.LinkIndex); sysctl(acceptRA(name)) == "1" {
					links = append(links, name)
				}
			}
		}
		slices.Sort(links)
		return slices.Compact(links), wrap("router advertisements", err)
	})
}

// KeepAdvertised sets accept_ra of a link to 2: the kernel then accepts router
// advertisements on it also while it forwards.
func KeepAdvertised(link string) error {
	if err := writeSysctl(acceptRA(link), "2"); err != nil {
		return fmt.Errorf("link %s has the default route of IPv6 by router advertisement, which the kernel drops when it begins to forward, "+
			"unless %s is 2: %w", link, acceptRA(link), err)
	}
	return nil
}

// UnkeepAdvertised sets accept_ra of a link back to 1 if it is 2 still. A link
// that is gone is fine.
func UnkeepAdvertised(link string) error {
	if sysctl(acceptRA(link)) != "2" {
		return nil
	}
	return wrap("link "+link+": accept_ra", unlessGone(writeSysctl(acceptRA(link), "1")))
}
