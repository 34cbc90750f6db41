package recipes

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/doctor"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// An engine is a Docker Engine of one version, with one packet filter.
type engine struct {
	name string
	// dirs have its programs; none is where the distribution has them.
	dirs []string
	// nftables: it filters by nftables of its own, not by iptables.
	nftables bool
}

// distribution is Debian's Docker Engine.
var distribution = engine{name: "20.10"}

// engines are the distribution's Docker Engine and, where OVSGRE_UPSTREAM says
// what test/upstream has built, today's.
func engines(t *testing.T) []engine {
	t.Helper()
	list := []engine{distribution}
	cache := os.Getenv("OVSGRE_UPSTREAM")
	if cache == "" {
		return list
	}
	var dirs []string
	for _, program := range []string{"moby-*/dockerd", "containerd-*/containerd"} {
		found, _ := filepath.Glob(filepath.Join(cache, program))
		if len(found) == 0 {
			t.Fatalf("no %s in %s: make test-docker builds it", program, cache)
		}
		dirs = append(dirs, filepath.Dir(found[len(found)-1]))
	}
	return append(list, engine{name: "today's, iptables", dirs: dirs}, engine{name: "today's, nftables", dirs: dirs, nftables: true})
}

// today reports whether the engine is not the distribution's.
func (e engine) today() bool { return e.dirs != nil }

// path is where the engine and those that it starts find programs.
func (e engine) path() string {
	return strings.Join(append(slices.Clone(e.dirs), os.Getenv("PATH")), ":")
}

// conf is a daemon.json. Debian's runc knows no time namespaces.
func (e engine) conf(t *testing.T, more obj) string {
	t.Helper()
	conf := maps.Clone(more)
	if e.today() {
		conf["features"] = obj{"time-namespaces": false}
	}
	if e.nftables {
		conf["firewall-backend"] = "nftables"
	}
	raw, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// A layout is a way to have Docker's containers in a network.
type layout struct {
	name  string
	noOVS bool
	// open: packets of the peers' containers come by Docker's bridge itself,
	// and no Docker Engine drops them.
	open    bool
	plugins func(bridge, subnet string, nodes []obj) []obj
}

var layouts = []layout{
	{name: "mesh and tunnel", open: true, plugins: ovsLayout("mesh", "tunnel")},
	{name: "mesh and direct", plugins: ovsLayout("mesh", "direct")},
	{name: "segment host", plugins: ovsLayout("host", "tunnel")},
	{name: "static routes", noOVS: true, plugins: func(bridge, subnet string, nodes []obj) []obj {
		return []obj{
			{"type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": true, "isDefaultGateway": true, "ipam": obj{"type": "host-local", "subnet": subnet}},
			{"type": "route-sync", "mode": "direct", "nodes": nodes},
		}
	}},
}

// ovsLayout has an OVS bridge in Docker's.
func ovsLayout(segment, mode string) func(bridge, subnet string, nodes []obj) []obj {
	return func(bridge, _ string, nodes []obj) []obj {
		return []obj{
			{"type": "ovs-gre", "linuxBridge": bridge, "segment": segment, "nodes": nodes, "ipam": obj{"type": "host-local"}},
			{"type": "route-sync", "mode": mode},
		}
	}
}

// TestEngines has every Docker Engine in every layout, on two hosts: the policy
// of FORWARD is DROP on the first and ACCEPT on the second. Where containers do
// not reach each other doctor says why; each remedy of docs/docker.md is tried,
// and holds when the engines start again.
func TestEngines(t *testing.T) {
	all := engines(t)
	for _, e := range all {
		for _, lay := range layouts {
			if len(all) == 1 && lay.name != "segment host" {
				continue // the recipes' own tests are about the others
			}
			t.Run(e.name+", "+lay.name, func(t *testing.T) {
				t.Parallel()
				tr := newTrial(t, e, lay)
				switch {
				case !e.today():
					tr.asItIs(t)
				case lay.open:
					tr.mtu(t)
				case e.nftables:
					tr.unprotected(t)
				default:
					tr.directRouting(t)
				}
			})
		}
	}
}

// mtu is what the tunnels leave of the underlay's.
const mtu = 1462

// A trial is a lab with an engine and a layout.
type trial struct {
	engine engine
	layout layout
	lab    *testnet.Lab
	sites  []*site
}

func newTrial(t *testing.T, e engine, lay layout) *trial {
	t.Helper()
	tr := &trial{engine: e, layout: lay}
	tr.lab = testnet.New(t, testnet.Options{Hosts: 2, NoOVS: lay.noOVS, PluginDir: cnitest.BinDir(t)})
	for i, h := range tr.lab.Hosts {
		tr.sites = append(tr.sites, &site{host: h, gateway: netip.AddrFrom4([4]byte{192, 168, byte(i + 1), 1})})
	}
	return tr
}

// asItIs wants all to work with an engine that nothing is said to, and after it
// has started again.
func (tr *trial) asItIs(t *testing.T) {
	tr.start(t, obj{})
	tr.up(t)
	tr.works(t, "at first")
	tr.start(t, obj{})
	tr.works(t, "after the engine's restart")
}

// mtu wants all to work where packets come by Docker's bridge. At each start
// today's engine gives it an MTU of its own.
func (tr *trial) mtu(t *testing.T) {
	tr.start(t, obj{})
	tr.up(t)
	tr.works(t, "at first")
	tr.start(t, obj{})
	tr.finds(t, "after the engine's restart", "fail host state: largest mtu is 1500, should be 1462", "warn tunnels: not asked")
	for i, s := range tr.sites {
		to := tr.sites[1-i].c
		if out, err := s.c.exec("ping -c 2 -i 0.2 -W 1 -s 1472 " + to.addr.String()); err == nil {
			t.Errorf("%s reaches %s with large packets before up: tell docs/docker.md: %s", s.c, to, out)
		}
	}
	tr.up(t)
	tr.works(t, "after up")
	for _, when := range []string{"with an MTU", "with an MTU, after the engine's restart"} {
		tr.start(t, obj{"mtu": mtu})
		tr.works(t, when)
		tr.closed(t, when)
	}
}

// directRouting wants today's engine to drop in the raw table what comes for a
// container by another link than its bridge, and not to do so by two remedies:
// doctor's command, and allow-direct-routing.
func (tr *trial) directRouting(t *testing.T) {
	tr.start(t, obj{})
	tr.up(t)
	tr.dead(t)
	commands := tr.finds(t, "at first", "fail docker raw drop: (Docker 28 and later do that to protect its containers)")
	for i, s := range tr.sites {
		if len(commands[i]) != 1 {
			t.Fatalf("%s: doctor has the commands %q", s.host.Name, commands[i])
		}
		s.host.Shell(t, commands[i][0])
	}
	tr.works(t, "by doctor's command")
	tr.closed(t, "by doctor's command")
	for i, s := range tr.sites {
		s.host.Shell(t, strings.Replace(commands[i][0], " -I ", " -D ", 1))
	}
	conf := obj{"allow-direct-routing": true}
	if !tr.layout.noOVS {
		conf["mtu"] = mtu
	}
	for _, when := range []string{"with allow-direct-routing", "with allow-direct-routing, after the engine's restart"} {
		tr.start(t, conf)
		tr.works(t, when)
		tr.closed(t, when)
	}
}

// unprotected wants the nftables backend to drop twice what comes for a
// container by another link than its bridge, and not to do so in a network
// whose gateway mode is nat-unprotected.
func (tr *trial) unprotected(t *testing.T) {
	tr.start(t, obj{})
	for _, s := range tr.sites {
		if out, err := s.host.Output(t.Context(), "/opt/cni/bin/ovs-grectl", "up", confPath); err == nil || !strings.Contains(err.Error(), "no rule of another table can accept it") {
			t.Errorf("%s: up does not say that Docker drops: %v: %s", s.host.Name, err, out)
		}
	}
	tr.dead(t)
	tr.finds(t, "at first", "fail forward filter: gateway mode nat-unprotected", "fail docker raw drop: gateway mode nat-unprotected",
		"fail host state: UNPUBLISHED PORT DROP", "warn tunnels: not asked")
	for i, s := range tr.sites {
		ctl(t, s.host, "down")
		s.docker.stop()
		s.host.Shell(t, "ip link delete br0 2>/dev/null || ip link delete docker0")
		s.docker = tr.engine.start(t, s.host, obj{"bridge": "none"})
		s.docker.run(t, "network", "create", "-d", "bridge", "--subnet", subnet(i), "--gateway", s.gateway.String(),
			"-o", "com.docker.network.bridge.name=br0", "-o", "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected", userMade)
		tr.conflist(t, i, "br0")
		s.docker.network = userMade
		s.c = s.docker.container(t)
	}
	tr.up(t)
	tr.works(t, "nat-unprotected")
	for _, s := range tr.sites {
		s.docker.stop()
		s.docker = tr.engine.start(t, s.host, obj{"bridge": "none"})
		s.docker.network = userMade
		s.c = s.docker.container(t)
	}
	tr.works(t, "nat-unprotected, after the engine's restart")
}

// userMade is the network of Docker that a user makes.
const userMade = "ovsnet"

// start starts the engines, or starts them again, on a bridge of one's own on
// the first host and on docker0 on the second, and a container of each.
func (tr *trial) start(t *testing.T, conf obj) {
	t.Helper()
	for i, s := range tr.sites {
		bridge := []string{"br0", "docker0"}[i]
		own := maps.Clone(conf)
		if i == 0 {
			own["bridge"] = bridge
		} else {
			own["bip"] = s.gateway.String() + "/24"
		}
		if s.docker != nil {
			s.docker.stop()
		} else {
			if i == 0 {
				s.host.Shell(t, "ip link add br0 type bridge; ip address add "+s.gateway.String()+"/24 dev br0; ip link set br0 up")
			}
			tr.policy(t, i)
			tr.conflist(t, i, bridge)
		}
		s.docker = tr.engine.start(t, s.host, own)
		if p, want := forwardPolicy(t, s.host), []string{"DROP", "ACCEPT"}[i]; p != want {
			t.Fatalf("%s: FORWARD is at %s, this test wants %s", s.host.Name, p, want)
		}
		s.c = s.docker.container(t)
	}
}

// policy prepares a host for FORWARD's policy. Docker with iptables sets it to
// DROP where it is the one to switch forwarding on; with nftables it does
// neither.
func (tr *trial) policy(t *testing.T, i int) {
	t.Helper()
	h := tr.sites[i].host
	if i == 1 || tr.engine.nftables {
		h.Shell(t, "sysctl -qw net.ipv4.ip_forward=1")
	}
	if i == 0 && tr.engine.nftables {
		h.Shell(t, "iptables -P FORWARD DROP")
		if tr.layout.noOVS {
			// route-sync is about the peers alone: the rest is the host's to accept.
			h.Shell(t, "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A FORWARD -i br0 ! -d 192.168.0.0/16 -j ACCEPT")
		}
	}
}

// subnet is that of a host's containers.
func subnet(i int) string { return fmt.Sprintf("192.168.%d.0/24", i+1) }

func (tr *trial) conflist(t *testing.T, i int, bridge string) {
	t.Helper()
	var nodes []obj
	for i, s := range tr.sites {
		nodes = append(nodes, obj{"name": s.host.Name, "address": s.host.Addr4.String(), "subnets": []string{subnet(i)}})
	}
	tr.sites[i].host.WriteFile(t, confPath, onDatapath(t, tr.lab, conflist(t, tr.layout.plugins(bridge, subnet(i), nodes)...)))
}

func (tr *trial) up(t *testing.T) {
	t.Helper()
	for _, s := range tr.sites {
		ctl(t, s.host, "up")
	}
}

// works walks, and wants doctor to find nothing.
func (tr *trial) works(t *testing.T, when string) {
	t.Helper()
	tr.finds(t, when)
	walk(t, tr.lab, tr.sites)
	if t.Failed() {
		t.Fatalf("it does not work %s", when)
	}
}

// dead wants containers not to reach each other.
func (tr *trial) dead(t *testing.T) {
	t.Helper()
	for i, s := range tr.sites {
		to := tr.sites[1-i].c
		if out, err := s.c.exec("ping -c 2 -i 0.2 -W 1 " + to.addr.String()); err == nil {
			t.Errorf("%s reaches %s: tell docs/docker.md: %s", s.c, to, out)
		}
	}
}

// closed wants who is no peer, and routes to a host, to reach none of its
// containers.
func (tr *trial) closed(t *testing.T, when string) {
	t.Helper()
	at := tr.lab.Underlay
	for _, s := range tr.sites {
		if out, err := at.Output(t.Context(), "sh", "-ec", fmt.Sprintf("ip route replace %[1]s via %[2]s; ping -c 2 -i 0.2 -W 1 %[1]s", s.c.addr, s.host.Addr4)); err == nil {
			t.Errorf("%s: %s answers a stranger: %s", when, s.c, out)
		}
		at.Shell(t, "ip route delete "+s.c.addr.String())
	}
}

// finds wants doctor to have these findings on each host, written "LEVEL check:
// part of what it saw", and no others but what is in order. It returns doctor's commands on each host.
func (tr *trial) finds(t *testing.T, when string, want ...string) (commands [][]string) {
	t.Helper()
	for _, s := range tr.sites {
		out, _ := s.host.Output(t.Context(), "/opt/cni/bin/ovs-grectl", "doctor", "--output", "json", confPath)
		var found []doctor.Finding
		if err := json.Unmarshal([]byte(out), &found); err != nil {
			t.Fatalf("%s: doctor: %v: %s", s.host.Name, err, out)
		}
		left, has := slices.Clone(want), []string(nil)
		for _, f := range found {
			if f.Level == doctor.OK {
				continue
			}
			if f.Command != "" {
				has = append(has, f.Command)
			}
			at := slices.IndexFunc(left, func(w string) bool { return matches(f, w) })
			if at < 0 {
				t.Errorf("%s, %s: doctor finds %s: %s: %s", s.host.Name, when, f.Level, f.Check, f.Seen)
				continue
			}
			left = slices.Delete(left, at, at+1)
		}
		if len(left) > 0 {
			t.Errorf("%s, %s: doctor does not find %q", s.host.Name, when, left)
		}
		commands = append(commands, has)
	}
	return commands
}

// matches reports whether a finding is what finds wants.
func matches(f doctor.Finding, want string) bool {
	head, part, _ := strings.Cut(want, ": ")
	return head == string(f.Level)+" "+f.Check && strings.Contains(f.Seen, part)
}
