package grectl

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/doctor"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestOnePort: doctor tells of flows that nobody puts back, plan makes the table,
// and the frames of a host that is no peer any more are out at once, counted.
func TestOnePort(t *testing.T) {
	t.Parallel()
	l := testnet.New(t, testnet.Options{Hosts: 3, PluginDir: cnitest.BinDir(t)})
	n := cnitest.Network{OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"ports": "one"}}}
	n.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	cnitest.AllReach(t, cs)
	h := l.Hosts[0]
	const check = "flow table"
	if bad := see(t, h, nil).bad(check); len(bad) != 1 || bad[0].Level != doctor.Warn || !strings.Contains(bad[0].Seen, "restart of ovs-vswitchd") {
		t.Errorf("nobody puts the flows back: %+v", bad)
	}
	h.WriteFile(t, "/run/systemd/system/ovs-vswitchd.service.d/50-ovs-gre.conf", "[Service]\n") // /etc is the machine's own
	if bad := see(t, h, nil).bad(check); len(bad) != 0 {
		t.Errorf("with the drop-in: %+v", bad)
	}

	// The commands of plan make a table that up has nothing to say about.
	script := h.Run(t, "/opt/cni/bin/ovs-grectl", "plan")
	h.Shell(t, "ovs-ofctl del-flows obr0-t")
	for line := range strings.Lines(script) {
		if strings.Contains(line, "ovs-ofctl") {
			h.Shell(t, line)
		}
	}
	if out := h.Run(t, "/opt/cni/bin/ovs-grectl", "status"); !strings.Contains(out, "as it should be") || !strings.Contains(out, "gre to all peers") {
		t.Errorf("after plan's commands: %s", out)
	}
	h.Run(t, "/opt/cni/bin/ovs-grectl", "up")
	cnitest.AllReach(t, cs)

	// The third host goes. It still has its tunnels, and sends.
	without := n
	without.Nodes = 2
	h.WriteFile(t, "/etc/cni/net.d/10-ovsnet.conflist", without.Conflist(l))
	h.Run(t, "/opt/cni/bin/ovs-grectl", "up")
	seen := testnet.CaptureIn(t, h, "obr0-t", "icmp")
	_, _ = cs[2].Output(context.Background(), "ping", "-n", "-c", "5", "-i", "0.2", "-W", "1", cs[0].Addr(t, false).String())
	testnet.Eventually(t, time.Minute, func() error {
		if out := h.Run(t, "/opt/cni/bin/ovs-grectl", "status"); !strings.Contains(out, "packets of hosts that are no peers were dropped") {
			return fmt.Errorf("nothing is counted: %s", out)
		}
		return nil
	})
	cnitest.Reach(t, "container 1 to container 2", cs[0], cs[1].Addr(t, false))
	for _, line := range seen.Stop(t) {
		if strings.Contains(line, cs[2].Addr(t, false).String()) {
			t.Errorf("from a host that is no peer: %s", line)
		}
	}
}
