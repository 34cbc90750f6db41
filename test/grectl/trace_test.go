package grectl

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/pkg/trace"
	"ovs-gre-cni/test/cnitest"
)

// follow calls trace on a host.
func follow(t testing.TB, h *testnet.Host, args ...string) trace.Trace {
	t.Helper()
	r := ctl(t, h, append([]string{"trace", "-o", "json"}, args...)...)
	if r.code == 2 {
		t.Fatalf("%s: trace %v: %s", h.Name, args, r.err)
	}
	tr := decode[trace.Trace](t, r)
	if tr.Arrives != (r.code == 0) || tr.Arrives == (tr.Stopped != "") {
		t.Errorf("exit %d of %+v", r.code, tr)
	}
	return tr
}

// A fault is one thing that stops packets from the container on host1 to that
// on host2.
type fault struct {
	name string
	// at is the host where it is made, seen the one where trace names it.
	at, seen int
	do       string
	step     string
	says     []string
	// undo is what the owner does; "" is what trace's command does.
	undo string
}

// faults are those of the issue about this tool, and some of their siblings.
func faults(a, b *cnitest.Container) []fault {
	p2 := b.Host.Addr4.String()
	to, tunnel := b.Result.IPs[0].Address.IP.String(), "$(ovs-vsctl list-ports obr0-t)"
	return []fault{
		{"route missing", 0, 0, "ip route del 192.168.2.0/24", trace.StepRoute, []string{"route 192.168.2.0/24 is missing"}, ""},
		{"foreign route better", 0, 0, "ip route add " + to + "/32 dev " + a.Host.UnderlayLink, trace.StepRoute, []string{to + "/32", "not ours"}, "ip route del " + to + "/32"},
		{"blackhole better", 0, 0, "ip route add blackhole " + to + "/32", trace.StepRoute, []string{to}, "ip route del blackhole " + to + "/32"},
		{"tunnel missing", 0, 0, "ovs-vsctl del-port " + tunnel, trace.StepTunnel, []string{"tunnel", "is missing"}, ""},
		{"wrong remote", 0, 0, "ovs-vsctl set interface " + tunnel + " options:remote_ip=172.16.32.99", trace.StepTunnel, []string{"remote_ip is 172.16.32.99, should be " + p2}, ""},
		{"wrong key", 0, 0, "ovs-vsctl set interface " + tunnel + " options:key=7", trace.StepTunnel, []string{"key is 7, should be none"}, ""},
		{"wrong key there", 1, 1, "ovs-vsctl set interface " + tunnel + " options:key=7", trace.StepTunnel, []string{"key is 7, should be none"}, ""},
		{"FORWARD drop", 0, 0, "iptables -P FORWARD DROP; iptables -F FORWARD", trace.StepFilter, []string{"the policy DROP of chain FORWARD"}, ""},
		{"FORWARD rule", 0, 0, "iptables -I FORWARD -d " + to + " -j REJECT", trace.StepFilter, []string{"rule 1 of chain FORWARD"}, "iptables -D FORWARD 1"},
		{"FORWARD drop there", 1, 1, "iptables -F FORWARD; iptables -P FORWARD DROP", trace.StepFilter, []string{"the policy DROP of chain FORWARD"}, ""},
		{"raw drop of Docker", 1, 1, "iptables -t raw -A PREROUTING -d " + to + "/32 ! -i docker0 -j DROP", trace.StepRaw, []string{"table ip raw", "drops it"}, ""},
		{"rp_filter", 1, 1, "ip route add " + a.Result.IPs[0].Address.IP.String() + "/32 dev " + b.Host.UnderlayLink + "; sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.obr0-t.rp_filter=1",
			trace.StepReverse, []string{"obr0-t", "dropped"}, "ip route del " + a.Result.IPs[0].Address.IP.String() + "/32; sysctl -qw net.ipv4.conf.obr0-t.rp_filter=2"},
		{"neighbour wrong", 0, 0, "ip neigh replace " + p2 + " lladdr 02:00:00:00:00:99 dev obr0-t nud permanent", trace.StepNeighbour, []string{"lladdr is 02:00:00:00:00:99"}, ""},
		{"neighbour wrong there", 1, 1, "ip neigh replace " + to + " lladdr 02:00:00:00:00:99 dev obr0 nud permanent", trace.StepNeighbour, []string{"02:00:00:00:00:99"}, ""},
		{"no forwarding", 0, 0, "sysctl -qw net.ipv4.ip_forward=0", trace.StepForward, []string{"ip_forward differs: value is 0"}, ""},
		{"no flows", 0, 0, "ovs-ofctl del-flows obr0", trace.StepOVS, []string{"obr0"}, ""},
		{"port gone", 0, 0, "ovs-vsctl del-port $(ovs-vsctl list-ports obr0)", trace.StepPort, []string{"OVS port", "is missing"}, ""},
		{"link down", 0, 0, "ip link set $(ovs-vsctl list-ports obr0) down", trace.StepPort, []string{"it is down"}, ""},
	}
}

// TestTrace breaks one thing after the other: trace names the step that stops
// the packet, and its command mends it, where it is not another's to mend.
func TestTrace(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	upAll(t, l)
	a, b := cnitest.Add(t, l.Hosts[0], "ovsnet", "a"), cnitest.Add(t, l.Hosts[1], "ovsnet", "b")
	from, to := a.Addr(t, false).String(), b.Addr(t, false).String()
	arrive := func(h *testnet.Host, what string) {
		t.Helper()
		if tr := follow(t, h, from, to); !tr.Arrives {
			t.Fatalf("%s: %s: %+v", h.Name, what, tr)
		}
	}
	ping(t, a, b, false)
	arrive(l.Hosts[0], "nothing is amiss")
	arrive(l.Hosts[1], "nothing is amiss")
	for _, f := range faults(a, b) {
		t.Run(f.name, func(t *testing.T) {
			at, seen := l.Hosts[f.at], l.Hosts[f.seen]
			at.Shell(t, f.do)
			tr := follow(t, seen, from, to)
			if tr.Arrives || tr.Stopped != f.step || tr.Last().Command == "" {
				t.Errorf("want step %s: %+v", f.step, tr)
			}
			for _, s := range f.says {
				if !strings.Contains(tr.Last().Seen, s) {
					t.Errorf("want %q in %q", s, tr.Last().Seen)
				}
			}
			undo := f.undo
			if undo == "" {
				undo = "PATH=$PATH:/opt/cni/bin\n" + tr.Last().Command
			}
			at.Shell(t, undo)
			arrive(seen, "after "+undo)
			cnitest.Reach(t, "after "+undo, a, b.Addr(t, false))
		})
	}
}

// TestTracePeer breaks what only the peer can see: trace says on which side
// the packet is lost, and the command that it names finds it there.
func TestTracePeer(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h, peer := l.Hosts[0], l.Hosts[1]
	upAll(t, l)
	a, b := cnitest.Add(t, h, "ovsnet", "a"), cnitest.Add(t, peer, "ovsnet", "b")
	from, to := a.Addr(t, false).String(), b.Addr(t, false).String()
	there := func(tr trace.Trace) trace.Trace {
		t.Helper()
		cmd, ok := strings.CutSuffix(tr.Last().Command, "  # on "+peer.Name)
		if !ok || tr.Peer != peer.Name {
			t.Fatalf("no command for %s in %+v", peer.Name, tr)
		}
		return follow(t, peer, strings.Fields(cmd)[2:]...)
	}
	stopped := func(tr trace.Trace, step string, says ...string) {
		t.Helper()
		if tr.Stopped != step {
			t.Errorf("want step %s: %+v", step, tr)
		}
		for _, s := range says {
			if !strings.Contains(tr.Last().Seen, s) {
				t.Errorf("want %q in %q", s, tr.Last().Seen)
			}
		}
	}

	// A wrong key on the peer's side.
	peer.Shell(t, "ovs-vsctl set interface $(ovs-vsctl list-ports obr0-t) options:key=7")
	tr := follow(t, h, from, to)
	stopped(tr, trace.StepPeer, "host2", "does not through the tunnel")
	stopped(there(tr), trace.StepTunnel, "key is 7, should be none")
	want(t, 0, peer, "up")

	// The peer lets ping by, and drops what is asked about.
	peer.Shell(t, "iptables -I FORWARD -p tcp --dport 80 -j DROP")
	tr = follow(t, h, from, to, "tcp", "80")
	stopped(tr, trace.StepTarget, to+" answers ping, and says nothing on TCP port 80")
	stopped(there(tr), trace.StepFilter, "rule 1 of chain FORWARD")
	if tr := follow(t, h, from, to, "tcp", "81"); !tr.Arrives || !strings.Contains(tr.Last().Seen, "refuses TCP port 81") {
		t.Errorf("%+v", tr)
	}
	peer.Shell(t, "iptables -D FORWARD 1")

	// The peer's container is gone.
	if err := b.Call("del"); err != nil {
		t.Fatal(err)
	}
	tr = follow(t, h, from, to, "tcp", "80")
	stopped(tr, trace.StepTarget, to+" does not answer", "host2")
	stopped(there(tr), trace.StepTarget, "no container here has "+to)

	// The peer has no network.
	want(t, 0, peer, "down", "--force")
	tr = follow(t, h, from, to)
	stopped(tr, trace.StepPeer, "the network is not up there")
	if again := there(tr); again.Arrives || again.Last().Command != "ovs-grectl up "+conflist {
		t.Errorf("%+v", again)
	}
	want(t, 0, peer, "up")

	// The peer's host is gone.
	l.Underlay.Shell(t, "ip link set host2 down")
	stopped(follow(t, h, from, to), trace.StepUnderlay, "does not answer on the underlay")
	l.Underlay.Shell(t, "ip link set host2 up")

	// The way has less room than it says.
	c := cnitest.Add(t, peer, "ovsnet", "c")
	to = c.Addr(t, false).String()
	cnitest.Reach(t, "before", a, c.Addr(t, false))
	l.Underlay.Shell(t, "ip link set host2 mtu 1400")
	tr = follow(t, h, from, to)
	stopped(tr, trace.StepMTU, "1500 bytes do not get to peer host2")
	h.Shell(t, "PATH=$PATH:/opt/cni/bin\n"+tr.Last().Command)
	// New containers have what fits; of the old one trace says so.
	tr = follow(t, h, from, to)
	stopped(tr, trace.StepMTU, "1362 is all that fits")
	h.Shell(t, tr.Last().Command)
	if tr := follow(t, h, from, to); !tr.Arrives {
		t.Errorf("%+v", tr)
	}
}

var stepLine = regexp.MustCompile(`^  (ok  |STOP)  ([A-Za-z_ ]{15})  \S`)

// steps are the marks and the names of the steps of a trace, and what it ends with.
func steps(text string) (list []string) {
	for line := range strings.Lines(text) {
		if m := stepLine.FindStringSubmatch(line); m != nil {
			list = append(list, strings.TrimSpace(m[1])+" "+strings.TrimSpace(m[2]))
		} else if strings.HasPrefix(line, "stopped at ") || strings.HasPrefix(line, "  iptables -t") {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

// page is a file of the checkout.
func page(t testing.TB, path string) string {
	t.Helper()
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestTraceText is what a person sees, and how containers are named.
func TestTraceText(t *testing.T) {
	l := lab(t, 2, cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}})
	h := l.Hosts[0]
	upAll(t, l)
	a, b := cnitest.Add(t, h, "ovsnet", "a"), cnitest.Add(t, l.Hosts[1], "ovsnet", "b")
	local := cnitest.Add(t, h, "ovsnet", "local")
	id := strings.Fields(h.Shell(t, "ip -o link show $(ovs-vsctl list-ports obr0 | head -1) | sed 's/.*alias ovs-gre ovsnet //'"))[0]
	to := b.Addr(t, false).String()
	r := want(t, 0, h, "trace", id, to)
	t.Log("\n" + r.out)
	if !strings.HasPrefix(r.out, "network ovsnet  192.168.1.") || !strings.HasSuffix(r.out, "arrives\n") || strings.Contains(r.out, "\x1b") {
		t.Errorf("%q", r.out)
	}
	for what, args := range map[string][]string{
		"a container here": {a.Addr(t, false).String(), local.Addr(t, false).String()},
		"over IPv6":        {a.Addr(t, true).String(), b.Addr(t, true).String(), "tcp", "80"},
		"the gateway":      {a.Addr(t, false).String(), "192.168.1.1"},
		"this host":        {a.Addr(t, false).String(), h.Addr4.String()},
		"a peer's host":    {a.Addr(t, false).String(), l.Hosts[1].Addr4.String()},
		"outside":          {a.Addr(t, false).String(), l.Underlay.Addr4.String(), "udp", "53"},
		"from a peer":      {to, a.Addr(t, false).String(), "tcp", "80"},
	} {
		if tr := follow(t, h, args...); !tr.Arrives {
			t.Errorf("%s: %+v", what, tr)
		}
	}
	// docs/troubleshooting.md shows what a rule in FORWARD looks like.
	h.Shell(t, "iptables -I FORWARD -d "+to+" -j REJECT")
	shown, seen := steps(page(t, "docs/troubleshooting.md")), steps(want(t, 1, h, "trace", a.Addr(t, false).String(), to).out)
	if diff := cmp.Diff(shown, seen); diff != "" {
		t.Errorf("-docs +trace:\n%s", diff)
	}
	for _, c := range []struct{ args, says string }{
		{"nobody 192.168.2.2", "no such container here"},
		{"x y", `destination "y": want an IP address`},
		{"x 192.168.2.2 igmp6", `protocol "igmp6"`},
		{"x 192.168.2.2 icmp 80", `port "80"`},
		{"x 192.168.2.2 tcp 65536", `port "65536"`},
		{"x", "it takes CONTAINER DESTINATION"},
		{"fd92:1::2 192.168.2.2", "one family"},
	} {
		if r := want(t, 2, h, append([]string{"trace"}, strings.Fields(c.args)...)...); !strings.Contains(r.err, c.says) {
			t.Errorf("%s: %s", c.args, r.err)
		}
	}
}

// TestTraceVariants follows packets in networks of every kind, both ways, and
// one that cannot arrive.
func TestTraceVariants(t *testing.T) {
	list := append(variants(),
		variant{"direct", cnitest.Network{RouteSync: cnitest.Conf{"mode": "direct"}, Subnets: func(i int) []string { return cnitest.Subnets(i)[:1] }}},
		variant{"no route-sync", cnitest.Network{OVSGRE: cnitest.Conf{"segment": "mesh"}}},
	)
	for _, v := range list {
		t.Run(v.name, func(t *testing.T) {
			l := lab(t, 2, v.net)
			upAll(t, l)
			cs := cnitest.AddAll(t, l, "ovsnet")
			if v.name == "auto" { // its routes are in a table of their own
				for i, h := range l.Hosts {
					tr := follow(t, h, cs[i].Addr(t, false).String(), cs[1-i].Addr(t, false).String())
					if tr.Stopped != trace.StepRoute || !strings.Contains(tr.Last().Seen, "table 100") {
						t.Errorf("%+v", tr)
					}
					h.Shell(t, tr.Last().Command+"; ip -6 rule add lookup 100")
				}
			}
			for _, v6 := range []bool{false, true} {
				if v6 && v.net.Subnets != nil {
					continue
				}
				from, to := cs[0].Addr(t, v6).String(), cs[1].Addr(t, v6).String()
				cnitest.Reach(t, "before", cs[0], cs[1].Addr(t, v6))
				for _, h := range l.Hosts {
					if tr := follow(t, h, from, to, "tcp", "80"); !tr.Arrives {
						t.Errorf("%s: %+v", h.Name, tr)
					}
				}
				// Back, where the first host sees it come.
				for _, h := range l.Hosts {
					if tr := follow(t, h, to, from); !tr.Arrives {
						t.Errorf("back, %s: %+v", h.Name, tr)
					}
				}
			}
			l.Underlay.Shell(t, "ip link set host2 down")
			if tr := follow(t, l.Hosts[0], cs[0].Addr(t, false).String(), cs[1].Addr(t, false).String()); tr.Arrives {
				t.Errorf("%+v", tr)
			}
			l.Underlay.Shell(t, "ip link set host2 up")
		})
	}
}

// TestTraceDead: without ovs-vswitchd, or OVSDB, nothing arrives, and trace says so.
func TestTraceDead(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h := l.Hosts[0]
	upAll(t, l)
	a := cnitest.Add(t, h, "ovsnet", "a").Addr(t, false).String()
	for _, d := range []struct {
		stop, start func(context.Context) error
		says        string
	}{
		{h.KillVswitchd, h.StartVswitchd, "ovs-vswitchd does not run"},
		{h.PauseVswitchd, h.ResumeVswitchd, "does not answer on its control socket"},
		{h.KillOVSDB, h.StartOVSDB, "db.sock"},
	} {
		if err := d.stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		tr := follow(t, h, a, "192.168.2.1")
		if tr.Stopped != trace.StepOVS || !strings.Contains(tr.Last().Seen, d.says) || !strings.HasPrefix(tr.Last().Command, "systemctl restart openvswitch") {
			t.Errorf("%s: %+v", d.says, tr)
		}
		if err := d.start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTraceOthers follows packets of containers that another plugin has made,
// of which the host's side is seen.
func TestTraceOthers(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 2, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	subnets := func(i int) []string { return cnitest.Subnets(i)[:1] }
	for i, h := range l.Hosts {
		h.WriteFile(t, conflist, bridgeChain(t, subnets(i)[0], cnitest.Network{Subnets: subnets}.NodeList(l)))
		h.Shell(t, "sysctl -qw net.ipv4.ip_forward=1")
	}
	a, b := cnitest.Add(t, l.Hosts[0], "ovsnet", "a"), cnitest.Add(t, l.Hosts[1], "ovsnet", "b")
	from, to := a.Addr(t, false).String(), b.Addr(t, false).String()
	ping(t, a, b, false)
	for _, h := range l.Hosts {
		if tr := follow(t, h, from, to, "tcp", "80"); !tr.Arrives {
			t.Errorf("%s: %+v", h.Name, tr)
		}
	}
	l.Hosts[0].Shell(t, "ip route del 192.168.2.0/24")
	if tr := follow(t, l.Hosts[0], from, to); tr.Stopped != trace.StepRoute || !strings.Contains(tr.Last().Seen, "route 192.168.2.0/24 is missing") {
		t.Errorf("%+v", tr)
	}
	want(t, 0, l.Hosts[0], "up")
	b.Delete(t)
	testnet.Eventually(t, longest, func() error { // the kernel takes the container's link in its own time
		if tr := follow(t, l.Hosts[1], from, to); tr.Stopped != trace.StepTarget {
			return fmt.Errorf("%+v", tr)
		}
		return nil
	})
}
