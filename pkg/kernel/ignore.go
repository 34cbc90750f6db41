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

// IgnoreRedirects makes a link of the namespace ignore ICMPv6 redirects, which
// Linux cannot be told not to send, and router advertisements, too, if
// advertisements is true. A kernel without IPv6 ignores both anyway.
func (n *Netns) IgnoreRedirects(ifName string, advertisements bool) error {
	keys := []string{"accept_redirects"}
	if advertisements {
		keys = append(keys, "accept_ra")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.Do(func() error {
		// The sockets are needed next, and entering the namespace again for them
		// would cost two more changes of threads.
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
