package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// oneBridge makes of a host of today one as versions without a bridge of the
// tunnels' own left it: tunnels and transit port on VLAN 4094 of the
// containers' bridge, with the addresses, neighbours and routes it had.
const oneBridge = `
bridge=$1 dev=obr0-t
mac=$(ip -o link show $dev | sed 's/.*ether //; s/ .*//')
mtu=$(ip -o link show $dev | sed 's/.* mtu //; s/ .*//')
addresses=$(ip -o addr show dev $dev | sed 's/.*inet6* //; s/ .*//')
neighbours=$(ip neigh show dev $dev nud all | grep -v -e FAILED -e INCOMPLETE | sed 's/ lladdr / /' | awk '{ print $1 "=" $2 }')
routes=$(ip -4 route show proto 121; ip -6 route show proto 121)
set -- -- set port $dev tag=4094 vlan_mode=access external_ids:ovs-gre.network=ovsnet external_ids:ovs-gre.role=transit \
	-- set interface $dev type=internal mac="\"$mac\"" mtu_request=$mtu external_ids:ovs-gre.network=ovsnet external_ids:ovs-gre.role=transit
for t in $(ovs-vsctl --bare --columns=name find interface external_ids:ovs-gre.role=tunnel); do
	remote=$(ovs-vsctl get interface $t options:remote_ip) local=$(ovs-vsctl get interface $t options:local_ip)
	set -- "$@" -- add-port $bridge $t -- set port $t tag=4094 vlan_mode=access protected=true \
		external_ids:ovs-gre.network=ovsnet external_ids:ovs-gre.role=tunnel -- set interface $t type=gre \
		options:remote_ip=$remote options:local_ip=$local external_ids:ovs-gre.network=ovsnet external_ids:ovs-gre.role=tunnel \
		external_ids:ovs-gre.peer=$(ovs-vsctl get interface $t external_ids:ovs-gre.peer)
done
ovs-vsctl --timeout=60 del-br $dev
ovs-vsctl --timeout=60 add-port $bridge $dev "$@" -- clear port $bridge tag -- clear port $bridge vlan_mode
ip link set $dev up
sysctl -qw net.ipv4.conf.$dev.rp_filter=2 net.ipv6.conf.$dev.addr_gen_mode=1
for a in $addresses; do case $a in *:*) ip addr replace $a dev $dev nodad;; *) ip addr replace $a dev $dev;; esac; done
for n in $neighbours; do ip neigh replace ${n%=*} lladdr ${n#*=} dev $dev nud permanent; done
echo "$routes" | while read -r r; do case $r in *$dev*) ip route replace $r;; esac; done
`

// TestUpgrade: hosts of the layout before and of today's reach each other, and
// a host is moved with its containers attached.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		keys cnitest.Conf
		// before the network is made on the first host
		setup string
		// move is what moves the host.
		move func(t *testing.T, l *testnet.Lab)
	}{
		{name: "by ADD", move: func(t *testing.T, l *testnet.Lab) { cnitest.Add(t, l.Hosts[0], "ovsnet", "late") }},
		{name: "by up", move: func(t *testing.T, l *testnet.Lab) {
			l.Hosts[0].Run(t, "/opt/cni/bin/ovs-grectl", "up", "/etc/cni/net.d/10-ovsnet.conflist")
		}},
		{name: "on an adopted bridge", keys: cnitest.Conf{"adoptBridge": true},
			setup: "ovs-vsctl --timeout=60 add-br obr0 -- set bridge obr0 datapath_type=$1; ip link set obr0 up",
			move:  func(t *testing.T, l *testnet.Lab) { cnitest.Add(t, l.Hosts[0], "ovsnet", "late") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := lab(t, 3)
			if tt.setup != "" {
				for _, h := range l.Hosts {
					h.Run(t, "sh", "-ec", tt.setup, "sh", l.Datapath)
				}
			}
			cnitest.Network{OVSGRE: tt.keys}.Install(t, l)
			cs := cnitest.AddAll(t, l, "ovsnet")
			first := l.Hosts[0]
			first.Run(t, "sh", "-ec", oneBridge, "sh", "obr0")
			if out := first.Run(t, "ovs-vsctl", "list-ports", "obr0"); !strings.Contains(out, "obr0-t") {
				t.Fatalf("obr0 has the ports %q, want the transit port among them", out)
			}
			cnitest.AllReach(t, cs)
			if err := cs[0].Call("check"); err == nil || !strings.Contains(err.Error(), "OVS bridge obr0-t") {
				t.Errorf("CHECK: %v, want a word about the bridge that is not there yet", err)
			}
			sent, answered := cnitest.During(t, cs[1], cs[0], time.Minute, func() { tt.move(t, l) })
			fmt.Printf("upgrade: %-7s  %s: of %d pings, one every 50 ms, %d were answered\n", l.Datapath, tt.name, sent, answered)
			if out := first.Run(t, "ovs-vsctl", "port-to-br", config.TunnelName("ovsnet", l.Hosts[1].Addr4)); strings.TrimSpace(out) != "obr0-t" {
				t.Errorf("the tunnel is on %q", out)
			}
			if out := first.Run(t, "ovs-vsctl", "--bare", "--columns=name", "find", "port", "tag=4094"); strings.TrimSpace(out) != "" {
				t.Errorf("still on VLAN 4094: %q", out)
			}
			cnitest.AllReach(t, cs)
			for _, c := range cs {
				if err := c.Call("check"); err != nil {
					t.Errorf("%s: CHECK: %v", c.Host.Name, err)
				}
			}
		})
	}
}
