package kernel

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// A restart is one way in which Open vSwitch ends and begins anew.
type restart struct {
	what string
	// before makes the host ready for it; "" is nothing.
	before string
	run    func(t *testing.T, h *testnet.Host)
}

// restarts are those of the table. A crash is for a monitor of OVS's own to see,
// which is how ovs-ctl starts ovs-vswitchd unless it is told not to, as by the
// units of Debian.
func restarts(l *testnet.Lab) []restart {
	steps := func(steps ...func(*testnet.Host, context.Context) error) func(*testing.T, *testnet.Host) {
		return func(t *testing.T, h *testnet.Host) {
			for _, s := range steps {
				if err := s(h, context.Background()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	list := []restart{
		{what: "ovs-vswitchd stopped and started", run: steps((*testnet.Host).StopVswitchd, (*testnet.Host).StartVswitchd)},
		{what: "ovsdb-server stopped and started", run: steps((*testnet.Host).StopOVSDB, (*testnet.Host).StartOVSDB)},
		{what: "openvswitch restarted", run: steps((*testnet.Host).StopOVS, (*testnet.Host).StartOVS)},
	}
	if l.Datapath != testnet.DatapathSystem {
		return list // the lab's ovs-vswitchd must be started by the lab
	}
	return append(list, restart{
		what: "ovs-vswitchd crashed under its monitor",
		before: `kill $(cat /run/openvswitch/ovs-vswitchd.pid)
			while [ -e /run/openvswitch/ovs-vswitchd.pid ]; do sleep 0.1; done
			ovs-vswitchd -vconsole:off --pidfile --detach --monitor --no-chdir --log-file`,
		run: func(t *testing.T, h *testnet.Host) {
			h.Shell(t, `was=$(cat /run/openvswitch/ovs-vswitchd.pid); kill -SEGV $was
				until [ "$(cat /run/openvswitch/ovs-vswitchd.pid 2>/dev/null)" != $was ] && ovs-appctl --timeout=60 version >/dev/null 2>&1; do sleep 0.1; done`)
		},
	})
}

// A keeper is who puts back what ovs-vswitchd has lost.
type keeper struct {
	name  string
	ports string
	agent bool
	// before and after are done before and after the restart; "" is nothing.
	before, after string
	// mend is the next call: nobody else does anything.
	mend func(t *testing.T, h *testnet.Host)
}

const (
	grectlUp = "/opt/cni/bin/ovs-grectl up >/dev/null"
	// dropIn is what the drop-in of the packages calls around a start of
	// ovs-vswitchd. The systemctl in its PATH says that ovs-gre.service is active.
	dropIn = "PATH=/etc/cni/fake:/opt/cni/bin:$PATH sh /etc/cni/fake/flow-restore "
)

// TestRestarts prints how many pings between containers of two hosts are lost
// while one of the hosts has its Open vSwitch restarted.
func TestRestarts(t *testing.T) {
	l := lab(t, 2)
	defer func() { report(t, l, "restarts of Open vSwitch") }()
	nextADD := func(t *testing.T, h *testnet.Host) {
		late := cnitest.Add(t, h, "ovsnet", "late")
		cnitest.DelAll(t, []*cnitest.Container{late})
	}
	keepers := []keeper{
		{name: "peer, agent", ports: "peer", agent: true},
		{name: "peer, nobody", ports: "peer"},
		{name: "one, agent", ports: "one", agent: true},
		{name: "one, drop-in", ports: "one", before: dropIn + "begin", after: dropIn + "restore; " + grectlUp},
		{name: "one, next ADD", ports: "one", mend: nextADD},
	}
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(root, "deploy", "systemd", "flow-restore"))
	if err != nil {
		t.Fatal(err)
	}
	l.Hosts[0].WriteFile(t, "/etc/cni/fake/flow-restore", string(script))
	l.Hosts[0].WriteFile(t, "/etc/cni/fake/systemctl", "#!/bin/sh\n")
	l.Hosts[0].Shell(t, "chmod 755 /etc/cni/fake/systemctl")
	table := map[string][]string{}
	var cs []*cnitest.Container
	for _, k := range keepers {
		net := cnitest.Network{OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"ports": k.ports}}}
		stop := keep(t, l, net, k)
		if cs == nil {
			cs = cnitest.AddAll(t, l, "ovsnet")
		}
		for _, r := range restarts(l) {
			table[r.what] = append(table[r.what], lostBy(t, l, cs, k, r))
		}
		stop()
	}
	if !t.Failed() {
		print(l, keepers, restarts(l), table)
	}
	cnitest.DelAll(t, cs)
	for _, h := range l.Hosts {
		h.Run(t, "/opt/cni/bin/ovs-grectl", "down", "--force", "/etc/cni/net.d/10-ovsnet.conflist")
	}
}

// keep makes a network with a kind of ports on both hosts, and starts the agent of
// the first where there is one. What it returns ends that.
func keep(t *testing.T, l *testnet.Lab, net cnitest.Network, k keeper) (stop func()) {
	t.Helper()
	net.Install(t, l)
	h := l.Hosts[0]
	for _, h := range l.Hosts {
		h.Shell(t, grectlUp)
	}
	if !k.agent {
		return func() {}
	}
	h.Shell(t, "rm /etc/cni/net.d/10-ovsnet.conflist") // the agent's to write
	nodes, err := json.Marshal(net.NodeList(l))
	if err != nil {
		t.Fatal(err)
	}
	h.WriteFile(t, "/etc/cni/nodes.json", string(nodes))
	template := net
	template.OVSGRE = cnitest.Conf{"nodes": nil, "tunnel": net.OVSGRE["tunnel"]}
	h.WriteFile(t, "/etc/cni/template.json", template.Conflist(l))
	ctx, cancel := context.WithCancel(context.Background())
	cmd := h.Command(ctx, "/opt/cni/bin/ovs-gre-agent", "run", "--template", "/etc/cni/template.json", "--nodes-file", "/etc/cni/nodes.json",
		"--conf-name", "10-ovsnet.conflist", "--page", "", "--listen", "127.0.0.1:9178", "--resync", "1h")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, patience(), func() error {
		out, err := h.Output(ctx, "bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9178; printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3; head -1 <&3`)
		if err == nil && !strings.Contains(out, " 200 ") {
			err = fmt.Errorf("the agent says %q", out)
		}
		return err
	})
	return func() { cancel(); _ = cmd.Wait() }
}

// lostBy is a cell of the table.
func lostBy(t *testing.T, l *testnet.Lab, cs []*cnitest.Container, k keeper, r restart) string {
	t.Helper()
	h := l.Hosts[0]
	if r.before != "" {
		h.Shell(t, r.before+"\n"+grectlUp)
	}
	var took time.Duration
	sent, answered := cnitest.During(t, cs[0], cs[1], patience(), func() {
		if k.before != "" {
			h.Shell(t, k.before)
		}
		r.run(t, h)
		began := time.Now()
		if k.after != "" {
			h.Shell(t, k.after)
		}
		if k.mend != nil {
			k.mend(t, h)
		}
		took = time.Since(began)
	})
	testnet.Eventually(t, patience(), func() error { return cs[0].Call("check") })
	if left := h.Shell(t, "ovs-vsctl --timeout=60 get Open_vSwitch . other_config external_ids"); strings.Contains(left, "flow-restore") {
		t.Errorf("%s, %s: the switch waits for flows: %s", k.name, r.what, left)
	}
	cell := fmt.Sprintf("%d of %d", sent-answered, sent)
	if k.after != "" || k.mend != nil {
		cell += fmt.Sprintf(" (%.1f s)", took.Seconds())
	}
	t.Logf("%s, %s: %s", k.name, r.what, cell)
	return cell
}

// print prints the table.
func print(l *testnet.Lab, keepers []keeper, list []restart, table map[string][]string) {
	var b strings.Builder
	fmt.Fprintf(&b, "pings lost of those sent, one every 50 ms, by tunnel.ports and who puts back what ovs-vswitchd has lost (and how long that took)\t\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "restart")
	for _, k := range keepers {
		fmt.Fprint(w, "\t", k.name)
	}
	fmt.Fprintln(w)
	for _, r := range list {
		fmt.Fprintln(w, r.what+"\t"+strings.Join(table[r.what], "\t"))
	}
	_ = w.Flush()
	for line := range strings.Lines(b.String()) {
		fmt.Printf("kernel: %-7s %s\n", l.Datapath, strings.TrimRight(line, "\t\n "))
	}
}
