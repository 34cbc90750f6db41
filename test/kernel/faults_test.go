package kernel

import (
	"context"
	"fmt"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// patience is how long a host may take to be itself again.
func patience() time.Duration {
	if cnitest.Emulated() {
		return 4 * time.Minute
	}
	return time.Minute
}

// during pings to from from while f runs, and reports how many were lost.
func during(t *testing.T, l *testnet.Lab, what string, from, to *cnitest.Container, f func()) {
	t.Helper()
	defer func() { report(t, l, what) }()
	sent, answered := cnitest.During(t, from, to, patience(), f)
	fmt.Printf("kernel: %-7s   %s: of %d pings, one every 50 ms, %d were answered\n", l.Datapath, what, sent, answered)
}

// restartUnits does what systemd does for `systemctl restart
// openvswitch-switch`: what the units of the distribution's package say, taken
// from them, in the order that their After= wants.
const restartUnits = `
says() { sed -e ':a; /\\$/ { N; s/\\\n//; ba; }' "/lib/systemd/system/$1.service" | sed -n "s/^$2=//p"; }
for step in "ovs-vswitchd ExecStop" "ovsdb-server ExecStop" "ovsdb-server ExecStart" "ovs-vswitchd ExecStart"; do
	run=$(says $step)
	[ "$run" ]
	eval "$run"
done`

// TestFaults: what happens to a conversation when Open vSwitch is treated
// badly, and that all is well afterwards without a human.
func TestFaults(t *testing.T) {
	l := lab(t, 2)
	cnitest.Network{}.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	h, ctx := l.Hosts[0], context.Background()
	must := func(steps ...func(context.Context) error) func() {
		return func() {
			for _, s := range steps {
				if err := s(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	type fault struct {
		what  string
		fault func()
	}
	faults := []fault{
		{"ovs-vswitchd killed and started", must(h.KillVswitchd, h.StartVswitchd)}, // TestRestarts has the other restarts
		{"ovsdb-server killed and started", must(h.KillOVSDB, h.StartOVSDB)},
		{"conf.db lost, ovs-grectl up", func() {
			must(h.StopOVS)()
			h.Run(t, "rm", "/etc/openvswitch/conf.db")
			must(h.StartOVS)()
			h.Run(t, "/opt/cni/bin/ovs-grectl", "up", "/etc/cni/net.d/10-ovsnet.conflist")
		}},
	}
	if l.Datapath == testnet.DatapathSystem { // without it, ovs-ctl does not start ovs-vswitchd
		faults = append(faults, fault{"openvswitch restarted by the commands of its units", func() { h.Shell(t, restartUnits) }},
			// What ovs-ctl force-reload-kmod does to a host. It would also take
			// modules from the other hosts of the lab, which share its kernel.
			fault{"datapath deleted, as to reload the module, ovs-grectl up", func() {
				must(h.StopOVS)()
				h.Run(t, "ovs-dpctl", "del-dp", "ovs-system")
				must(h.StartOVS)()
				h.Run(t, "/opt/cni/bin/ovs-grectl", "up", "/etc/cni/net.d/10-ovsnet.conflist")
			}})
	}
	for _, c := range faults {
		t.Run(c.what, func(t *testing.T) {
			during(t, l, c.what, cs[0], cs[1], c.fault)
			testnet.Eventually(t, patience(), func() error { return cs[0].Call("check") })
		})
	}
	// Up made the network persistent.
	h.Run(t, "/opt/cni/bin/ovs-grectl", "down", "--force", "/etc/cni/net.d/10-ovsnet.conflist")
}

// TestStranger: a host that is not in nodes has a tunnel to one that is, of
// the right type and key, and sends to its containers. Nothing gets in.
func TestStranger(t *testing.T) {
	l := lab(t, 3)
	cnitest.Network{Nodes: 2}.Install(t, l)
	member := &testnet.Lab{Hosts: l.Hosts[:2], Underlay: l.Underlay, Datapath: l.Datapath, Dir: l.Dir}
	cs := cnitest.AddAll(t, member, "ovsnet")
	cnitest.AllReach(t, cs)
	stranger := l.Hosts[2]
	datapath := ""
	if l.Datapath == testnet.DatapathNetdev {
		datapath = "datapath_type=netdev"
	}
	// All that a peer would have, made by hand.
	stranger.Shell(t, fmt.Sprintf(`
		ovs-vsctl --timeout=60 add-br obr0 -- set bridge obr0 %s fail_mode=standalone -- add-port obr0 t -- set interface t type=gre options:remote_ip=%s \
			-- add-port obr0 obr0-t -- set interface obr0-t type=internal
		ip link set obr0-t up mtu 1400
		ip addr add 10.66.0.1/32 dev obr0-t
		ip neigh replace %[2]s lladdr 0a:58:ac:10:20:64 dev obr0-t nud permanent
		ip route replace 192.168.1.0/24 via %[2]s dev obr0-t onlink src 10.66.0.1`, datapath, l.Hosts[0].Addr4))
	defer func() { report(t, l, "a stranger's GRE stays out") }()
	inside := testnet.CaptureIn(t, cs[0].Netns, "eth0", "src host 10.66.0.1")
	wire := l.Capture(t, fmt.Sprintf("proto gre and src host %s", stranger.Addr4))
	// A gratuitous ARP request, and pings that must go unanswered.
	if lost, err := cnitest.Unreached(stranger, cs[0].Addr(t, false)); err != nil || len(lost) != 1 {
		t.Errorf("the stranger reaches the container: lost %v, %v", lost, err)
	}
	if got := wire.Stop(t); len(got) == 0 {
		t.Error("the stranger sent nothing: the test proves nothing")
	}
	if got := inside.Stop(t); len(got) > 0 {
		t.Errorf("the container got %q", got)
	}
	stranger.Run(t, "ovs-vsctl", "--timeout=60", "del-br", "obr0")
}
