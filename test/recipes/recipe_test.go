package recipes

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// A site is one host of a recipe: its Docker Engine and one container of it,
// and one that CNI attached to the same bridge.
type site struct {
	host   *testnet.Host
	docker *docker
	c      *dockerContainer
	cni    *cnitest.Container
	// gateway is the address of the bridge that the containers are on.
	gateway netip.Addr
}

// obj is a JSON object.
type obj = map[string]any

// conflist is a conflist of the network ovsnet.
func conflist(t *testing.T, plugins ...obj) string {
	t.Helper()
	raw, err := json.MarshalIndent(obj{"cniVersion": "1.0.0", "name": "ovsnet", "plugins": plugins}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// ctl calls ovs-grectl on the network's file.
func ctl(t *testing.T, h *testnet.Host, command string) {
	t.Helper()
	h.Run(t, "/opt/cni/bin/ovs-grectl", command, confPath)
}

// attach makes a container by CNI, with an address that Docker does not reach.
func (s *site) attach(t *testing.T, addr string) {
	t.Helper()
	s.cni = &cnitest.Container{Netns: s.host.NewNetns(t, "cni"), Network: "ovsnet", IfName: "eth0"}
	s.cni.Attach(t, "CNI_ARGS=IgnoreUnknown=1;IP="+addr)
	if got := s.cni.Addr(t, false).String(); got != addr {
		t.Errorf("%s: CNI gave %s, not %s", s.host.Name, got, addr)
	}
}

// walk does what the recipes do to see that they work, and then some.
func walk(t *testing.T, l *testnet.Lab, sites []*site) {
	t.Helper()
	for i, from := range sites {
		to := sites[1-i]
		from.c.reach(t, to.host.Addr4)    // container to the peer's host
		from.c.reach(t, to.c.addr)        // container to container
		from.c.reach(t, l.Underlay.Addr4) // container to the outside
		from.c.reach(t, to.gateway)
		reach(t, fmt.Sprintf("%s to %s", from.host.Name, to.c), from.host, to.c.addr)
		from.c.fetch(t, to.c) // a container's MTU is 1500, whatever the way takes
		if from.cni == nil || to.cni == nil {
			continue
		}
		for _, a := range []netip.Addr{from.c.addr, to.c.addr, to.cni.Addr(t, false), to.host.Addr4, l.Underlay.Addr4} {
			reach(t, fmt.Sprintf("CNI container of %s to %s", from.host.Name, a), from.cni, a)
		}
		from.c.reach(t, from.cni.Addr(t, false))
		from.c.reach(t, to.cni.Addr(t, false))
		reach(t, from.host.Name+" to the peer's CNI container", from.host, to.cni.Addr(t, false))
	}
}

// wire is what a container's ping of the peer's container looks like on the
// underlay: in GRE, or bare.
func wire(t *testing.T, l *testnet.Lab, sites []*site, tunnelled bool) {
	t.Helper()
	c := l.Capture(t, "icmp or ip proto 47")
	sites[0].c.reach(t, sites[1].c.addr)
	lines := c.Stop(t)
	to := " > " + sites[1].c.addr.String() + ": ICMP echo request"
	if n := cnitest.Seen(lines, to); n != 1 || (cnitest.Seen(lines, to, "GREv0") == 1) != tunnelled {
		t.Errorf("want one echo request%s, in GRE: %t; on the underlay are:\n%s", to, tunnelled, strings.Join(lines, "\n"))
	}
}

// forwardPolicy is what the host does with forwarded packets by default.
func forwardPolicy(t *testing.T, h *testnet.Host) string {
	t.Helper()
	return strings.TrimSpace(h.Shell(t, "iptables -S FORWARD | sed -n 's/^-P FORWARD //p'"))
}

// TestRecipe000 is the first recipe: br0 holds the gateway address, Docker is
// told to use it, obr0 with its GRE port is plugged into it, and each host
// routes the other's subnet by the other's address.
func TestRecipe000(t *testing.T) {
	t.Parallel()
	l := testnet.New(t, testnet.Options{Hosts: 2, PluginDir: cnitest.BinDir(t)})
	file := func(mode string) string {
		return onDatapath(t, l, conflist(t, obj{
			"type": "ovs-gre", "linuxBridge": "br0", "segment": "mesh", "ipam": obj{"type": "host-local"},
			"nodes": []obj{
				{"name": "HOST1", "address": "172.16.32.100", "subnets": []string{"192.168.1.0/24"}},
				{"name": "HOST2", "address": "172.16.32.101", "subnets": []string{"192.168.2.0/24"}},
			},
		}, obj{"type": "route-sync", "mode": mode}))
	}
	var sites []*site
	for i, h := range l.Hosts {
		gw := netip.AddrFrom4([4]byte{192, 168, byte(i + 1), 1})
		h.Shell(t, "ip link add br0 type bridge; ip address add "+gw.String()+"/24 dev br0; ip link set br0 up")
		h.WriteFile(t, confPath, file("direct"))
		sites = append(sites, &site{host: h, gateway: gw})
	}
	one, two := sites[0], sites[1]
	// On one host Docker is there before the network, on the other it comes later.
	one.docker = startDocker(t, one.host, "--bridge=br0")
	one.c = one.docker.container(t)
	if p := forwardPolicy(t, one.host); p != "DROP" {
		t.Errorf("Docker leaves FORWARD at %s: this test does not test what it is for", p)
	}
	mac := func() string { return one.host.Shell(t, "ip -o link show br0 | sed 's/.*ether //; s/ .*//'") }
	before := mac()
	ctl(t, one.host, "up")
	ctl(t, two.host, "up")
	// Docker's containers know their gateway by it.
	if after := mac(); after != before {
		t.Errorf("up has changed br0's MAC address from %s to %s", before, after)
	}
	two.docker = startDocker(t, two.host, "--bridge=br0")
	two.c = two.docker.container(t)
	for i, want := range []string{"192.168.1.2", "192.168.2.2"} {
		if got := sites[i].c.addr.String(); got != want {
			t.Errorf("Docker gave %s, the recipe has %s", got, want)
		}
	}
	walk(t, l, sites)

	rules := func() (list []string) {
		for line := range strings.Lines(one.host.Shell(t, "iptables -S")) {
			if strings.Contains(line, `"ovs-gre:ovsnet`) {
				list = append(list, line)
			}
		}
		return list
	}
	// Docker lets its containers out and answers in; the rest is for us to accept.
	if list := rules(); len(list) != 3 || slices.ContainsFunc(list, func(r string) bool {
		return !strings.Contains(r, "-A DOCKER-USER") || !strings.Contains(r, "-d 192.168.1.0/24")
	}) {
		t.Errorf("want three accepts, of what is for br0's subnet, in DOCKER-USER; there are\n%s", strings.Join(list, ""))
	}
	// Somebody closes the other host, too; up sees it.
	two.host.Shell(t, "iptables -P FORWARD DROP")
	if out, err := two.host.Output(t.Context(), "/opt/cni/bin/ovs-grectl", "status", confPath); err == nil || !strings.Contains(out+err.Error(), "br0") {
		t.Errorf("status does not tell of the policy: %v: %s", err, out)
	}
	ctl(t, two.host, "up")
	walk(t, l, sites)
	// Docker starts anew and puts its own rules on top.
	one.docker.stop()
	one.docker = startDocker(t, one.host, "--bridge=br0")
	one.c = one.docker.container(t)
	walk(t, l, sites)
	one.attach(t, "192.168.1.200")
	two.attach(t, "192.168.2.200")
	route := one.host.Run(t, "ip", "route", "show", "192.168.2.0/24")
	if !strings.Contains(route, "via 172.16.32.101 ") {
		t.Errorf("want the recipe's route via 172.16.32.101, there is %s", route)
	}
	walk(t, l, sites)
	for _, s := range sites {
		s.host.WriteFile(t, confPath, file("tunnel"))
		ctl(t, s.host, "up")
	}
	if list := strings.Join(rules(), ""); strings.Contains(list, ":routes") {
		t.Errorf("mode tunnel leaves accepts of mode direct:\n%s", list)
	}
	walk(t, l, sites)
	wire(t, l, sites, true)
	for _, s := range sites {
		if err := s.cni.Call("del"); err != nil {
			t.Error(err)
		}
		s.cni.Delete(t)
		ctl(t, s.host, "down")
		if left := s.host.Shell(t, "iptables -S; nft list ruleset; ip route; ovs-vsctl show; ls /run/ovs-gre 2>/dev/null || true"); strings.Contains(left, "ovs-gre") || strings.Contains(left, "obr0") || strings.Contains(left, "proto 121") {
			t.Errorf("%s: left:\n%s", s.host.Name, left)
		}
		s.c.reach(t, l.Underlay.Addr4) // Docker goes on as before
	}
}

// hosts003 are the second recipe's: a bridge of one's own on the one, docker0
// on the other.
var hosts003 = []struct{ addr, bridge, subnet, gateway, peer string }{
	{"192.168.99.101", "bridge0", "172.18.0.0/16", "172.18.0.1", "172.17.0.0/16"},
	{"192.168.99.102", "docker0", "172.17.0.0/16", "172.17.0.1", "172.18.0.0/16"},
}

func nodes003() []obj {
	var nodes []obj
	for _, h := range hosts003 {
		nodes = append(nodes, obj{"name": "host" + h.addr[len(h.addr)-3:], "address": h.addr, "subnets": []string{h.subnet}})
	}
	return nodes
}

// lab003 starts the second recipe's hosts, each with Docker as it wants it.
func lab003(t *testing.T, noOVS bool) (*testnet.Lab, []*site) {
	t.Helper()
	l := testnet.New(t, testnet.Options{Hosts: 2, NoOVS: noOVS, PluginDir: cnitest.BinDir(t),
		Prefix4: netip.MustParsePrefix("192.168.99.0/24"), FirstHost: 101})
	var sites []*site
	for i, h := range l.Hosts {
		r := hosts003[i]
		var options []string
		if r.bridge != "docker0" {
			h.Shell(t, fmt.Sprintf("ip link add %[1]s type bridge; ip address add %[2]s/16 dev %[1]s; ip link set %[1]s up", r.bridge, r.gateway))
			options = []string{"--bridge=" + r.bridge}
		}
		s := &site{host: h, gateway: netip.MustParseAddr(r.gateway), docker: startDocker(t, h, options...)}
		s.c = s.docker.container(t)
		if !netip.MustParsePrefix(r.subnet).Contains(s.c.addr) {
			t.Fatalf("Docker gave %s, the recipe has %s", s.c.addr, r.subnet)
		}
		sites = append(sites, s)
	}
	return l, sites
}

// TestRecipe003Static is the second recipe's first part: two routes, and no
// Open vSwitch. Docker closes FORWARD to what comes from outside; the recipe
// does not say so.
func TestRecipe003Static(t *testing.T) {
	t.Parallel()
	l, sites := lab003(t, true)
	for i, s := range sites {
		r := hosts003[i]
		s.host.WriteFile(t, confPath, conflist(t,
			obj{"type": "bridge", "bridge": r.bridge, "isGateway": true, "ipMasq": true, "isDefaultGateway": true, "ipam": obj{"type": "host-local", "subnet": r.subnet}},
			obj{"type": "route-sync", "mode": "direct", "nodes": nodes003()}))
		ctl(t, s.host, "up")
		route := s.host.Run(t, "ip", "route", "show", r.peer)
		if want := "via " + sites[1-i].host.Addr4.String(); !strings.Contains(route, want) {
			t.Errorf("want the recipe's route %s, there is %s", want, route)
		}
	}
	walk(t, l, sites)
	sites[0].attach(t, "172.18.200.1")
	sites[1].attach(t, "172.17.200.1")
	walk(t, l, sites)
	for _, s := range sites {
		if _, err := os.Stat(s.host.Dir + "/etc/openvswitch/conf.db"); err == nil {
			t.Errorf("%s has an Open vSwitch", s.host.Name)
		}
		if err := s.cni.Call("del"); err != nil {
			t.Error(err)
		}
		ctl(t, s.host, "down")
		if left := s.host.Shell(t, "ip route show proto 121; iptables -S | grep ovs-gre || true; ls /run/ovs-gre 2>/dev/null || true"); left != "" {
			t.Errorf("%s: left: %s", s.host.Name, left)
		}
	}
}

// TestRecipe003OVS is its second part: an OVS bridge with a GRE port plugged
// into Docker's bridge, and the other's subnet on the link.
func TestRecipe003OVS(t *testing.T) {
	t.Parallel()
	l, sites := lab003(t, false)
	var before []string
	// Who is no peer, and routes to a host, reaches none of its containers.
	strangers := func(when string) {
		t.Helper()
		for _, s := range sites {
			if out, err := l.Underlay.Output(t.Context(), "sh", "-ec", fmt.Sprintf("ip route replace %[1]s via %[2]s; ping -c 2 -i 0.2 -W 1 %[1]s", s.c.addr, s.host.Addr4)); err == nil {
				t.Errorf("%s: %s answers a stranger: %s", when, s.c, out)
			}
		}
		l.Underlay.Shell(t, "ip route flush root 172.16.0.0/12 proto boot")
	}
	strangers("before")
	for i, s := range sites {
		r := hosts003[i]
		before = append(before, snapshot(t, s.host))
		s.host.WriteFile(t, confPath, onDatapath(t, l, conflist(t,
			obj{"type": "ovs-gre", "bridge": "br0", "linuxBridge": r.bridge, "segment": "mesh", "nodes": nodes003(), "ipam": obj{"type": "host-local"}},
			obj{"type": "route-sync"})))
		ctl(t, s.host, "up")
		if route := s.host.Run(t, "ip", "route", "show", r.peer); !strings.Contains(route, r.peer+" dev "+r.bridge+" ") {
			t.Errorf("want the recipe's route %s dev %s, there is %s", r.peer, r.bridge, route)
		}
		if p := forwardPolicy(t, s.host); p != "DROP" {
			t.Errorf("Docker leaves FORWARD at %s: this test does not test what it is for", p)
		}
	}
	walk(t, l, sites)
	wire(t, l, sites, true)
	strangers("with the network")
	sites[0].attach(t, "172.18.200.1")
	sites[1].attach(t, "172.17.200.1")
	walk(t, l, sites)
	for i, s := range sites {
		if err := s.cni.Call("del"); err != nil {
			t.Error(err)
		}
		s.cni.Delete(t)
		ctl(t, s.host, "down")
		unchanged(t, s.host, before[i])
	}
}
