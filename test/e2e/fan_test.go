package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// fan is the key nodes of a network that lists none: 172.16.32.100 has 10.32.100.0/24.
var fan = cnitest.Conf{"underlay": "172.16.0.0/16", "containers": "10.0.0.0/8"}

// asFan is the same nodes in a list.
func asFan(i int) []string { return []string{fmt.Sprintf("10.32.%d.0/24", 100+i)} }

// TestFan: hosts whose nodes is no list reach each other, and those that list the same
// nodes, with a port a peer or one, and CHECK finds nothing.
func TestFan(t *testing.T) {
	t.Parallel()
	l := lab(t, 4)
	for _, typ := range []string{"gre", "vxlan", "geneve"} {
		for _, segment := range []string{"host", "container"} {
			t.Run(typ+", segment "+segment, func(t *testing.T) {
				for i, h := range l.Hosts {
					keys := cnitest.Conf{"segment": segment, "ipMasq": true, "tunnel": cnitest.Conf{"type": typ}}
					switch i {
					case 2:
						keys["tunnel"] = cnitest.Conf{"type": typ, "ports": "one"}
					case 3:
					default:
						keys["nodes"] = fan
					}
					h.WriteFile(t, "/etc/cni/net.d/10-ovsnet.conflist", cnitest.Network{OVSGRE: keys, Subnets: asFan}.Conflist(l))
				}
				before := snapshot(t, l.Hosts[0])
				cs := cnitest.AddAll(t, l, "ovsnet")
				cnitest.AllReach(t, cs)
				for _, c := range cs {
					if err := c.Call("check"); err != nil {
						t.Errorf("%s: CHECK: %v", c.Host.Name, err)
					}
				}
				fanObjects(t, l.Hosts[0])
				for _, c := range cs {
					del(t, c)
				}
				unchanged(t, l.Hosts[0], before)
			})
		}
	}
}

// fanObjects looks whether a host has one of everything.
func fanObjects(t *testing.T, h *testnet.Host) {
	t.Helper()
	if out, want := h.Shell(t, "ip route show proto 121"),
		"10.0.0.0/8 via 169.254.121.1 dev obr0-t src 10.32.100.1 onlink"; strings.Join(strings.Fields(out), " ") != want {
		t.Errorf("routes %q, want %q", out, want)
	}
	if out := h.Shell(t, "ip neigh show dev obr0-t nud permanent"); strings.Count(out, "\n") != 1 {
		t.Errorf("neighbours %q, want one", out)
	}
	if out := h.Shell(t, "ovs-vsctl list-ports obr0-t"); strings.TrimSpace(out) != config.OneTunnelName("ovsnet") {
		t.Errorf("the tunnels' bridge has the ports %q, want one", out)
	}
}

// crowdScript makes a host of the lab stand for many: $1 to $2 are the last bytes of
// their addresses, $3 the link that gets these, $4 the datapath. Each is a network
// namespace with the container's address, and two flows made by hand of what the
// frames on the wire are to be; nothing of the product is there.
const crowdScript = `
first=$1 last=$2 link=$3 datapath=$4
ovs-vsctl --timeout=60 add-br crowd -- set bridge crowd datapath_type=$datapath fail_mode=secure \
	-- add-port crowd gre0 -- set interface gre0 type=gre options:remote_ip=flow options:local_ip=flow ofport_request=1000
for i in $(seq $first $last); do
	ip address add 172.16.32.$i/24 dev $link
	ip netns add s$i
	ip link add v$i mtu 1400 type veth peer name eth0 address 02:00:00:00:00:$(printf %x $i) mtu 1400 netns s$i
	ip link set v$i addrgenmode none up
	ip -n s$i link set eth0 addrgenmode none up
	ip -n s$i address add 10.32.$i.2/24 dev eth0
	ip -n s$i route add default via 10.32.$i.1
	ip -n s$i neigh add 10.32.$i.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
	ip netns exec s$i ethtool -K eth0 tx off >/dev/null
	echo "add-port crowd v$i -- set interface v$i ofport_request=$i --"
done >ports
xargs ovs-vsctl --timeout=60 <ports
for i in $(seq $first $last); do
	echo "in_port=$i,ip,nw_dst=10.0.0.0/8 actions=set_field:172.16.32.$i->tun_src,set_field:0a:58:ac:10:00:00->eth_dst,\
move:NXM_OF_IP_DST[8..23]->NXM_OF_ETH_DST[0..15],move:NXM_OF_ETH_DST[0..31]->NXM_NX_TUN_IPV4_DST[],output:1000"
	printf 'in_port=1000,tun_dst=172.16.32.%d,dl_dst=0a:58:ac:10:20:%02x,ip,nw_dst=10.32.%d.0/24 actions=set_field:02:00:00:00:00:%02x->eth_dst,output:%d\n' \
		$i $i $i $i $i
done | ovs-ofctl add-flows crowd -
`

// crowd makes the hosts first to last of one of the lab's.
func crowd(t *testing.T, l *testnet.Lab, h *testnet.Host, first, last int) (list []end) {
	t.Helper()
	h.Run(t, "sh", "-ec", "cd /run\n"+crowdScript, "crowd", strconv.Itoa(first), strconv.Itoa(last), h.UnderlayLink, l.Datapath)
	for i := first; i <= last; i++ {
		name := fmt.Sprintf("s%d", i)
		list = append(list, end{&testnet.Netns{Name: name, Path: "/run/netns/" + name, Host: h}, netip.AddrFrom4([4]byte{10, 32, byte(i), 2})})
	}
	return list
}

// An end is a container, or what stands for one, with its address.
type end struct {
	testnet.Runner
	addr netip.Addr
}

// reachAll pings all of to from each of from, and back. On the userspace datapath OVS
// drops what comes before it has asked for the MAC address of a host on the underlay.
func reachAll(t *testing.T, from, to []end) {
	t.Helper()
	const script = `for a; do (for i in $(seq 60); do ping -n -q -c 1 -W 1 $a >/dev/null && exit; done; echo $a) & done; wait`
	var wg sync.WaitGroup
	ask := func(e end, others []end) {
		args := []string{"-c", script, "ping"}
		for _, o := range others {
			args = append(args, o.addr.String())
		}
		if lost, err := e.Output(t.Context(), "sh", args...); err != nil || lost != "" {
			t.Errorf("from %s: no answer from %v %v", e.addr, strings.Fields(lost), err)
		}
	}
	for _, e := range from {
		wg.Go(func() { ask(e, to) })
	}
	wg.Wait()
	for _, e := range to {
		wg.Go(func() { ask(e, from) })
	}
	wg.Wait()
}

// TestFanOfMany: three hosts and thirty simulated ones, which nobody lists, reach each
// other; and so does a host from the moment that it has an address.
func TestFanOfMany(t *testing.T) {
	t.Parallel()
	l := lab(t, 6)
	cnitest.Network{OVSGRE: cnitest.Conf{"nodes": fan}}.Install(t, l)
	var full []end
	for i, h := range l.Hosts[:3] {
		c := cnitest.Add(t, h, "ovsnet", fmt.Sprintf("c%d", i+1))
		full = append(full, end{c.Netns, c.Addr(t, false)})
	}
	reachAll(t, full[:1], full[1:])
	one, other := crowd(t, l, l.Hosts[3], 150, 164), crowd(t, l, l.Hosts[4], 165, 179)
	began := time.Now()
	reachAll(t, full, append(slices.Clone(one), other...))
	reachAll(t, []end{one[0], one[7], one[14]}, other)
	pairs := 2 * (3*30 + 3*15)
	fmt.Printf("fan: of three hosts and thirty simulated ones %d pairs were tried in %s\n", pairs, time.Since(began).Round(time.Millisecond))
	fanObjects(t, l.Hosts[0])

	late := l.Hosts[5]
	link := late.UnderlayLink
	late.Shell(t, "ip -4 address flush dev "+link)
	c := &cnitest.Container{Netns: late.NewNetns(t, "late"), Network: "ovsnet", IfName: "eth0"}
	if err := c.Call("add"); err == nil || !strings.Contains(err.Error(), "172.16.0.0/16: none of this host's addresses") {
		t.Errorf("ADD without an address: %v", err)
	}
	late.Run(t, "ip", "address", "add", "172.16.32.200/24", "dev", link)
	if err := c.Call("add"); err != nil {
		t.Fatal(err)
	}
	reachAll(t, []end{{c.Netns, c.Addr(t, false)}}, slices.Concat(full, one, other))
	if a := c.Addr(t, false); a != netip.MustParseAddr("10.32.200.2") {
		t.Errorf("the new host's first container has %s", a)
	}
	if err := c.Call("del"); err != nil {
		t.Error(err)
	}
}

// TestChangeToFan: hosts go from a list of nodes to none and back, one after the other,
// with their containers attached; STATUS and GC are as with a list.
func TestChangeToFan(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	kinds := map[string]cnitest.Conf{
		"a list, a port a peer": {"nodes": cnitest.Network{Subnets: asFan}.NodeList(l), "tunnel": cnitest.Conf{"ports": "peer"}},
		"a list, one port":      {"nodes": cnitest.Network{Subnets: asFan}.NodeList(l), "tunnel": cnitest.Conf{"ports": "one"}},
		"no list":               {"nodes": fan},
	}
	file := func(kind string) string { return cnitest.Network{OVSGRE: kinds[kind]}.Conflist(l) }
	before := snapshot(t, l.Hosts[0])
	var cs []*cnitest.Container
	for _, kind := range []string{"a list, a port a peer", "no list", "a list, one port", "no list", "a list, a port a peer", "no list"} {
		for i, h := range l.Hosts {
			h.WriteFile(t, "/etc/cni/net.d/10-ovsnet.conflist", file(kind))
			if cs == nil {
				continue
			}
			sent, answered := cnitest.During(t, cs[(i+1)%3], cs[i], time.Minute, func() {
				late := cnitest.Add(t, h, "ovsnet", "late")
				del(t, late)
			})
			fmt.Printf("change to %s: of %d pings, one every 50 ms, %d were answered\n", kind, sent, answered)
			cnitest.AllReach(t, cs)
		}
		if cs == nil {
			cs = cnitest.AddAll(t, l, "ovsnet")
			cnitest.AllReach(t, cs)
		}
		for _, c := range cs {
			if err := c.Call("check"); err != nil {
				t.Errorf("%s: CHECK with %s: %v", c.Host.Name, kind, err)
			}
		}
	}
	fanObjects(t, l.Hosts[0])
	for _, plugin := range []string{"ovs-gre", "route-sync"} {
		if _, err := call(cs[0].Netns, plugin, "STATUS", cnitest.PluginConf(t, file("no list"), plugin, nil)); err != nil {
			t.Errorf("STATUS of %s: %v", plugin, err)
		}
	}
	for _, plugin := range []string{"route-sync", "ovs-gre"} {
		conf := cnitest.PluginConf(t, file("no list"), plugin, cnitest.Conf{"cni.dev/valid-attachments": []cnitest.Conf{}})
		if _, err := call(cs[0].Netns, plugin, "GC", conf); err != nil {
			t.Errorf("GC of %s: %v", plugin, err)
		}
	}
	for _, c := range cs {
		del(t, c)
	}
	unchanged(t, l.Hosts[0], before)
}
