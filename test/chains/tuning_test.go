package chains

import (
	"strings"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// tuned is what the network wants of a container's interface.
var tuned = cnitest.Conf{
	"type": "tuning", "mac": "02:11:22:33:44:55", "mtu": 1400, "promisc": true,
	"sysctl": cnitest.Conf{"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500"},
}

// TestTuning sets what tuning can set. The MAC address is asked of ovs-gre, too,
// whose host knows its containers by it. Neither ovs-gre's CHECK nor tuning's own
// objects; after somebody else's change the one says so whose it is.
func TestTuning(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			l := lab(t, cnitest.Network{Version: version, OVSGRE: cnitest.Conf{"args": cnitest.Conf{"cni": cnitest.Conf{"mac": tuned["mac"]}}}, Chain: []cnitest.Conf{tuned}})
			h := l.Hosts[0]
			before := cnitest.MustLook(t, h)
			c, far := add(t, h, "ovsnet", "c1"), add(t, l.Hosts[1], "ovsnet", "far")
			link := c.Shell(t, "ip -d link show eth0; cat /proc/sys/net/ipv4/conf/eth0/arp_filter /proc/sys/net/core/somaxconn")
			for _, want := range []string{"02:11:22:33:44:55", "mtu 1400", "promiscuity 1", "\n1\n500\n"} {
				if !strings.Contains(link, want) {
					t.Errorf("want %q in\n%s", want, link)
				}
			}
			if mac := c.Result.Interfaces[2].Mac; mac != "02:11:22:33:44:55" {
				t.Errorf("the result says that the MAC address is %s", mac)
			}
			for _, v6 := range []bool{false, true} {
				reach(t, "tuned to tuned", c, far.Addr(t, v6))
				reach(t, "the peer host to tuned", l.Hosts[1], c.Addr(t, v6))
			}
			c.check(t)
			for change, says := range map[string]string{
				"ip link set eth0 mtu 1300":                  "1300",
				"ip link set eth0 address 02:00:00:00:00:01": "02:00:00:00:00:01",
				"ip link set eth0 promisc off":               "promisc",
				"sysctl -qw net.core.somaxconn=400":          "somaxconn",
			} {
				c.Shell(t, change)
				if err := c.Call("check"); err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("CHECK after %s: %v", change, err)
				}
				c.Shell(t, "ip link set eth0 mtu 1400 address 02:11:22:33:44:55 promisc on; sysctl -qw net.core.somaxconn=500")
				c.check(t)
			}
			for _, c := range []*container{c, far} {
				c.del(t)
			}
			unchanged(t, h, before)
			if left := h.Shell(t, "find /run/cni /run/ovs-gre /var/lib/cni/networks -type f 2>/dev/null | grep -v -e lock -e last_reserved || true"); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// TestTuningMAC asks by CNI_ARGS for a MAC address in a chain that has both: it
// is the same one whoever sets it.
func TestTuningMAC(t *testing.T) {
	t.Parallel()
	l := lab(t, cnitest.Network{Chain: []cnitest.Conf{{"type": "tuning"}}})
	c := add(t, l.Hosts[0], "ovsnet", "c1", "CNI_ARGS=IgnoreUnknown=1;MAC=02:aa:bb:cc:dd:ee")
	if link := c.Shell(t, "ip link show eth0"); !strings.Contains(link, "02:aa:bb:cc:dd:ee") {
		t.Errorf("asked for 02:aa:bb:cc:dd:ee, there is\n%s", link)
	}
	c.check(t)
	reach(t, "the host", c, l.Hosts[0].Addr4)
	c.del(t)
}
