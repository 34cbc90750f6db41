package testnet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// underlayBridge is the Linux bridge that all hosts are plugged into.
const underlayBridge = "underlay"

// mac is the Ethernet address that goes with an IPv4 address on the underlay.
// It is a NIC's: the same one after a reboot.
func mac(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}

// cidr is an address of the host together with the length of the prefix.
func cidr(a netip.Addr, p netip.Prefix) string { return netip.PrefixFrom(a, p.Bits()).String() }

// underlayScript makes the switch. It is as silent as a switch should be: no
// multicast snooping and no link-local address means no queries and no router
// solicitations of its own. $1 to $4: MAC, MTU, IPv4 and IPv6 address.
const underlayScript = `
ip link set lo up
for f in all default; do echo 0 >/proc/sys/net/ipv6/conf/$f/accept_dad; done
ip link add underlay address "$1" type bridge mcast_snooping 0
ip link set underlay addrgenmode none mtu "$2" up
ip address add "$3" dev underlay
ip address add "$4" dev underlay nodad
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
`

// startUnderlay makes the switch between the hosts.
func (l *Lab) startUnderlay(ctx context.Context) error {
	u := &Host{
		Name:         "underlay",
		Addr4:        nth4(l.opts.Prefix4, outside),
		Addr6:        nth6(l.opts.Prefix6, outside),
		UnderlayLink: underlayBridge,
		lab:          l,
	}
	// The holder removes the lab's directory, also when this process is killed.
	holder, err := hold(ctx, underlayScript, `cat; rm -rf -- "$5"`,
		mac(u.Addr4), strconv.Itoa(l.opts.UnderlayMTU), cidr(u.Addr4, l.opts.Prefix4), cidr(u.Addr6, l.opts.Prefix6), l.Dir)
	if err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	u.holder = holder
	l.Underlay = u
	if l.Datapath == DatapathNetdev && !l.opts.NoOVS {
		// The userspace datapath passes frames on as it gets them, also those
		// whose checksum a NIC was to fill in.
		_, err = u.Output(ctx, "ethtool", "-K", underlayBridge, "tx", "off")
	}
	return err
}

// plug gives the host an eth0 on the underlay, with its addresses.
func (h *Host) plug(ctx context.Context) error {
	mtu := strconv.Itoa(h.lab.opts.UnderlayMTU)
	// Only the network of the underlay: a pid given to ip is one of this
	// machine's.
	u := strconv.Itoa(h.lab.Underlay.PID())
	args := []string{"--target", u, "--net", "--", "ip", "link", "add", h.Name, "mtu", mtu, "master", underlayBridge, "up",
		"type", "veth", "peer", "name", "eth0", "address", mac(h.Addr4), "mtu", mtu, "netns", strconv.Itoa(h.PID())}
	if out, err := exec.CommandContext(ctx, "nsenter", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("plug into the underlay: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return h.script(ctx, "ip link set eth0 up\n"+addressScript, h.addressing("eth0")...)
}

// unplug removes the host's port from the underlay, if it still exists.
func (h *Host) unplug(ctx context.Context) error {
	return h.lab.Underlay.script(ctx, `ip link delete "$1" 2>/dev/null || ! ip link show "$1" 2>/dev/null`, h.Name)
}

// addressScript puts the host's addresses and default routes on a link; its
// arguments are from addressing. It may run again.
const addressScript = `
ip address replace "$2" dev "$1"
ip address replace "$3" dev "$1" nodad
ip route replace default via "$4" dev "$1"
ip -6 route replace default via "$5" dev "$1"
`

func (h *Host) addressing(link string) []string {
	o, u := h.lab.opts, h.lab.Underlay
	return []string{link, cidr(h.Addr4, o.Prefix4), cidr(h.Addr6, o.Prefix6), u.Addr4.String(), u.Addr6.String()}
}

// pingAll pings the outside and every other host until it answers, so that a
// test does not meet an underlay that is just learning its neighbours.
func (h *Host) pingAll(ctx context.Context) error {
	var to []string
	for _, o := range append([]*Host{h.lab.Underlay}, h.lab.Hosts...) {
		if o != h {
			to = append(to, o.Addr4.String(), o.Addr6.String())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	err := h.script(ctx, `for a; do until ping -n -q -c 1 -W 0.5 "$a" >/dev/null; do :; done; done`, to...)
	if err != nil {
		err = fmt.Errorf("%s: the underlay does not answer: %w", h.Name, err)
	}
	return err
}

// UnderlayPackets is the number of packets that the hosts have sent to the
// underlay since they booted.
func (l *Lab) UnderlayPackets(t testing.TB) uint64 {
	t.Helper()
	var links []struct {
		Master string
		Stats  struct{ RX struct{ Packets uint64 } } `json:"stats64"`
	}
	out := l.Underlay.Run(t, "ip", "-json", "-statistics", "link", "show", "master", underlayBridge)
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		t.Fatalf("underlay: ip link: %v: %s", err, out)
	}
	var sum uint64
	for _, k := range links {
		sum += k.Stats.RX.Packets
	}
	return sum
}
