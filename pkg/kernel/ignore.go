package kernel

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"ovs-gre-cni/pkg/state"
)

// metWithoutIPv6 reports whether a sysctl is fulfilled because its link has no
// IPv6: the kernel was started without, or the link's MTU is below 1280.
func metWithoutIPv6(s state.Sysctl) bool {
	if !s.MetWithoutIPv6() {
		return false
	}
	dev, _, _ := strings.Cut(strings.TrimPrefix(s.Key, "net/ipv6/conf/"), "/")
	if _, err := os.Stat(sysctlPath("net/ipv4/conf/" + dev)); err != nil {
		return false // there is no such link
	}
	_, err := os.Stat(sysctlPath("net/ipv6/conf/" + dev))
	return errors.Is(err, fs.ErrNotExist)
}

// IgnoreRedirects has a link of the namespace ignore ICMPv6 redirects, which a
// router cannot be told not to send, and, if advertisements, the router
// advertisements of anybody on its segment. A kernel without IPv6 ignores them
// anyway.
func (n *Netns) IgnoreRedirects(ifName string, advertisements bool) error {
	keys := []string{"accept_redirects"}
	if advertisements {
		keys = append(keys, "accept_ra")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.do(func() error {
		// To enter the namespace costs two changes of threads: what comes next
		// needs the sockets.
		if err := n.dial(); err != nil {
			return err
		}
		for _, k := range keys {
			if err := unlessGone(writeSysctl("net/ipv6/conf/"+ifName+"/"+k, "0")); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap("link "+ifName+": ignore router advertisements and redirects", err)
}
