package e2e

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// How a broken thing is mended: by a script, or by one of these.
const (
	// asSaid runs the command that CHECK's message gives.
	asSaid = ""
	// again detaches the host's only container and attaches it again.
	again = "again"
)

// A break is one thing that goes wrong behind the plugins' back.
type breakage struct {
	name string
	// host and container are scripts that break it.
	host, container string
	// daemon breaks it where no script can.
	daemon func(*testnet.Host) error
	// says are texts of the one line in which a plugin's CHECK says it.
	says []string
	// plugin is who says it, by default ovs-gre.
	plugin string
	// mend is asSaid, again, or a script for the host.
	mend string
	// restart undoes daemon.
	restart func(*testnet.Host) error
}

const routeSync = "route-sync"

func TestCheck(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	n := cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}}
	n.Install(t, l)
	c := cnitest.Add(t, l.Hosts[0], "ovsnet", "c1")
	peer := l.Hosts[1]
	// The scripts' names of things: container's port, tunnel to the peer.
	vars := fmt.Sprintf("port=%s tunnel=%s peer=%s datapath=%s\n",
		port(c), config.TunnelName("ovsnet", peer.Addr4), peer.Addr4, l.Datapath)
	content(t, c, n.Conflist(l))
	for _, b := range breakages(c, peer) {
		t.Run(b.name, func(t *testing.T) { broken(t, c, n.Conflist(l), vars, b) })
	}
}

func breakages(c *cnitest.Container, peer *testnet.Host) []breakage {
	ctx := context.Background()
	port, tunnel := "OVS port "+port(c), fmt.Sprintf("tunnel %s to %s (%s)", config.TunnelName("ovsnet", peer.Addr4), peer.Name, peer.Addr4)
	hop6 := config.LinkLocal(config.MAC(peer.Addr4)).String()
	return []breakage{
		{name: "container link down", container: "ip link set eth0 down", says: []string{"interface eth0 of the container is down"}, mend: again},
		{name: "container's MTU too large", container: "ip link set eth0 mtu 1480", says: []string{"interface eth0 of the container has mtu 1480, should be at most 14"}},
		{name: "container link gone", container: "ip link delete eth0", says: []string{"interface eth0 is missing in the container"}, mend: again},
		{name: "container address removed", container: "ip address delete 192.168.1.2/24 dev eth0", says: []string{"address 192.168.1.2/24 of eth0 is missing in the container"}, mend: again},
		{name: "container IPv6 address removed", container: "ip address delete fd92:1::2/64 dev eth0", says: []string{"address fd92:1::2/64 of eth0 is missing in the container"}, mend: again},
		{name: "default route removed", container: "ip route delete default", says: []string{"route 0.0.0.0/0 by eth0 is missing in the container"}},
		{name: "default route elsewhere", container: "ip route replace default via 192.168.1.99", says: []string{"route 0.0.0.0/0 by eth0 is missing in the container"}},
		{name: "IPv6 default route removed", container: "ip -6 route delete default", says: []string{"route ::/0 by eth0 is missing in the container"}},
		{name: "host end down", host: "ip link set $port down", says: []string{"link " + c.Result.Interfaces[1].Name}},
		{name: "host end out of the bridge", host: "ovs-vsctl del-port obr0 $port", says: []string{port + " is missing"}},
		{name: "port's tag", host: "ovs-vsctl set port $port tag=7", says: []string{port, "tag is", "not 0"}},
		{name: "port a trunk", host: "ovs-vsctl clear port $port tag -- set port $port vlan_mode=trunk", says: []string{port, "tag"}},
		{name: "port protected", host: "ovs-vsctl set port $port protected=true", says: []string{port, "protected is true, should be false"}},
		{name: "port on another bridge", host: `p=$(ovs-vsctl get port $port _uuid)
ovs-vsctl add-br other -- set bridge other datapath_type=$datapath -- remove bridge obr0 ports $p -- add bridge other ports $p`,
			says: []string{port, "bridge is other, should be obr0"}, mend: `p=$(ovs-vsctl get port $port _uuid)
ovs-vsctl remove bridge other ports $p -- add bridge obr0 ports $p -- del-br other`},
		{name: "tunnel missing", host: "ovs-vsctl del-port obr0-t $tunnel", says: []string{tunnel + " is missing"}},
		{name: "tunnel's remote", host: "ovs-vsctl set interface $tunnel options:remote_ip=172.16.32.77", says: []string{tunnel + " differs", "remote_ip is 172.16.32.77"}},
		{name: "tunnel's key", host: "ovs-vsctl set interface $tunnel options:key=5", says: []string{tunnel + " differs", "key is 5, should be none"}},
		{name: "tunnel's type", host: "ovs-vsctl set interface $tunnel type=vxlan", says: []string{tunnel + " differs", "type is vxlan, should be gre"}},
		{name: "tunnel's tag", host: "ovs-vsctl set port $tunnel tag=7", says: []string{tunnel + " differs", "tag is 7"}},
		{name: "tunnel not protected", host: "ovs-vsctl set port $tunnel protected=false", says: []string{tunnel + " differs", "not protected"}},
		{name: "transit link down", host: "ip link set obr0-t down", says: []string{"link obr0-t differs", "it is down"}, mend: again},
		{name: "tunnel bridge missing", host: "ovs-vsctl del-br obr0-t", says: []string{"OVS bridge obr0-t is missing"}, mend: again},
		{name: "transit link's tag", host: "ovs-vsctl set port obr0-t tag=1", says: []string{"OVS bridge obr0-t differs", "tag is 1, not 0"}},
		{name: "bridge down", host: "ip link set obr0 down", says: []string{"link obr0 differs", "it is down"}, mend: again},
		{name: "bridge's MAC", host: "ovs-vsctl set bridge obr0 other_config:hwaddr='\"0a:00:00:00:00:01\"'", says: []string{"OVS bridge obr0 differs", "0a:00:00:00:00:01"}, mend: again},
		{name: "gateway address removed", host: "ip address delete 192.168.1.1/24 dev obr0", says: []string{"address 192.168.1.1/24 of obr0 is missing"}, mend: again},
		{name: "IPv6 gateway address removed", host: "ip address delete fd92:1::1/64 dev obr0", says: []string{"address fd92:1::1/64 of obr0 is missing"}, mend: again},
		{name: "masquerade gone", host: "nft delete table inet ovs-gre-ovsnet", says: []string{"masquerade of network ovsnet is missing"}, mend: again},
		{name: "masquerade without rules", host: "nft flush chain inet ovs-gre-ovsnet postrouting", says: []string{"masquerade of network ovsnet"}, mend: again},
		{name: "masquerade of more", host: "nft insert rule inet ovs-gre-ovsnet postrouting accept", says: []string{"masquerade of network ovsnet"}, mend: again},
		{name: "FORWARD's policy", host: "iptables -P FORWARD DROP", says: []string{"forward accept of IPv4 from obr0-t to obr0 differs", "the policy DROP of chain FORWARD of table ip filter drops it"}, mend: "iptables -P FORWARD ACCEPT"},
		{name: "FORWARD's last rule", host: "ip6tables -A FORWARD -j REJECT", says: []string{"forward accept of IPv6 from obr0 differs", "rule 1 of chain FORWARD of table ip6 filter (-j REJECT) drops it"}, mend: "ip6tables -F FORWARD"},
		{name: "forwarding off", host: "sysctl -qw net.ipv4.ip_forward=0", says: []string{"sysctl net/ipv4/ip_forward differs"}, mend: again},
		{name: "IPv6 forwarding off", host: "sysctl -qw net.ipv6.conf.all.forwarding=0", says: []string{"sysctl net/ipv6/conf/all/forwarding differs"}},
		{name: "redirects on", host: "sysctl -qw net.ipv4.conf.obr0.send_redirects=1", says: []string{"sysctl net/ipv4/conf/obr0/send_redirects differs"}},
		{name: "strict reverse path filter", host: "sysctl -qw net.ipv4.conf.obr0-t.rp_filter=1", says: []string{"sysctl net/ipv4/conf/obr0-t/rp_filter differs"}},
		{name: "address not in host-local", host: "rm /var/lib/cni/networks/ovsnet/192.168.1.2 /var/lib/cni/networks/ovsnet/fd92*", says: []string{"host-local has no address for this container"}, mend: again},
		{name: "ovs-vswitchd dead", daemon: func(h *testnet.Host) error { return h.KillVswitchd(ctx) }, says: []string{"ovs-vswitchd does not run"},
			restart: func(h *testnet.Host) error { return h.StartVswitchd(ctx) }},

		{plugin: routeSync, name: "route missing", host: "ip route delete 192.168.2.0/24", says: []string{"route 192.168.2.0/24 is missing"}},
		{plugin: routeSync, name: "IPv6 route missing", host: "ip -6 route delete fd92:2::/64", says: []string{"route fd92:2::/64 is missing"}},
		{plugin: routeSync, name: "route elsewhere", host: "ip route replace 192.168.2.0/24 via 172.16.32.2 proto 121 src 192.168.1.1", says: []string{"route 192.168.2.0/24 differs", "172.16.32.2"}},
		{plugin: routeSync, name: "somebody's route", host: "ip route replace 192.168.2.0/24 via 172.16.32.2 proto static", says: []string{"route 192.168.2.0/24 differs", "172.16.32.2"}},
		{plugin: routeSync, name: "IPv6 route elsewhere", host: "ip -6 route delete fd92:2::/64; ip -6 route add fd92:2::/64 via fd00:32::2 proto 121 src fd92:1::1", says: []string{"route fd92:2::/64 differs", "fd00:32::2"},
			mend: "ip -6 route delete fd92:2::/64; ip -6 route add fd92:2::/64 via " + hop6 + " dev obr0-t src fd92:1::1 proto 121"},
		{plugin: routeSync, name: "source of the route gone", host: "ip address delete 192.168.1.1/24 dev obr0; ip address delete 192.168.1.1/32 dev obr0-t", says: []string{"192.168.2.0/24", "gateway address is missing"}, mend: again},
		{plugin: routeSync, name: "link of the route gone", host: "ovs-vsctl del-br obr0-t", says: []string{"192.168.2.0/24"}, mend: again},
		{plugin: routeSync, name: "neighbour missing", host: "ip neigh delete $peer dev obr0-t", says: []string{fmt.Sprintf("neighbour %s on obr0-t is missing", peer.Addr4)}},
		{plugin: routeSync, name: "neighbour's MAC", host: "ip neigh replace $peer lladdr 0a:58:01:02:03:04 dev obr0-t nud permanent", says: []string{fmt.Sprintf("neighbour %s on obr0-t differs", peer.Addr4), "0a:58:01:02:03:04"}},
		{plugin: routeSync, name: "IPv6 neighbour missing", host: "ip neigh delete " + hop6 + " dev obr0-t", says: []string{"neighbour " + hop6 + " on obr0-t is missing"}},
	}
}

// broken breaks a thing, wants CHECK to say so, mends it, and wants CHECK to
// be content; no CHECK may change anything.
func broken(t *testing.T, c *cnitest.Container, conflist, vars string, b breakage) {
	h := c.Host
	if b.plugin == "" {
		b.plugin = "ovs-gre"
	}
	if b.host != "" {
		h.Shell(t, vars+b.host)
	}
	if b.container != "" {
		c.Shell(t, b.container)
	}
	if b.daemon != nil {
		must(t, b.daemon(h))
	}
	before := everything(t, c)
	err := check(t, c, conflist, b.plugin)
	if d := diff(before, everything(t, c)); d != "" {
		t.Errorf("CHECK has changed something (-before +after):\n%s", d)
	}
	line := drift(t, err, b.says)
	switch {
	case b.restart != nil:
		must(t, b.restart(h))
	case b.mend == asSaid:
		h.Shell(t, vars+command(t, line))
	case b.mend != again:
		h.Shell(t, vars+b.mend)
	default:
		attachAgain(t, c)
	}
	content(t, c, conflist)
	if t.Failed() {
		attachAgain(t, c) // so that the next is judged by itself
	}
}

// attachAgain detaches the host's only container, and with it goes all that
// the network has there, and attaches it again, with the same address.
func attachAgain(t *testing.T, c *cnitest.Container) {
	t.Helper()
	if err := c.Call("del"); err != nil {
		t.Fatal(err)
	}
	c.Host.Shell(t, "rm -f /var/lib/cni/networks/ovsnet/last_reserved_ip*")
	c.Attach(t)
}

// content wants both plugins' CHECK to find nothing.
func content(t *testing.T, c *cnitest.Container, conflist string) {
	t.Helper()
	for _, plugin := range []string{"ovs-gre", routeSync} {
		if err := check(t, c, conflist, plugin); err != nil {
			t.Errorf("%s CHECK: %v", plugin, err)
		}
	}
}

// everything is a snapshot of the host with its sysctls, and of the container.
func everything(t *testing.T, c *cnitest.Container) string {
	t.Helper()
	return snapshot(t, c.Host) +
		c.Host.Shell(t, "cd /proc/sys/net; grep . ipv4/ip_forward ipv4/conf/*/forwarding ipv4/conf/*/rp_filter ipv4/conf/*/send_redirects ipv6/conf/*/forwarding ipv6/conf/*/addr_gen_mode 2>/dev/null || true") +
		c.Shell(t, calm+"{ ip -o link; ip -o address; ip route; ip -6 route; } | calm")
}

// drift wants code 100 and returns the line that says what is wrong.
func drift(t *testing.T, err error, says []string) string {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != 100 {
		t.Errorf("want CHECK to fail with code 100, got %#v", err)
		return ""
	}
	lines := strings.Split(e.Details, "\n")
	if first, _, _ := strings.Cut(lines[0], "; by hand: "); !strings.Contains(e.Msg, first) {
		t.Errorf("the message is %q, the details begin with %q", e.Msg, lines[0])
	}
	for _, line := range lines {
		if seen([]string{line}, says...) == 1 {
			return line
		}
	}
	t.Errorf("want a line with %q, got:\n%s", says, e.Details)
	return ""
}

var commandIn = regexp.MustCompile(`; by hand: (.*)$`)

// command is what a line of CHECK says to do.
func command(t *testing.T, line string) string {
	t.Helper()
	m := commandIn.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("no command in %q", line)
	}
	return m[1]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
