package grectl

import (
	"encoding/json"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/pkg/trace"
	"ovs-gre-cni/test/cnitest"
)

// TestFan: what ovs-grectl says of a network that lists no hosts.
func TestFan(t *testing.T) {
	t.Parallel()
	fan := cnitest.Conf{"underlay": "172.16.0.0/16", "containers": "10.0.0.0/8"}
	l := lab(t, 2, cnitest.Network{OVSGRE: cnitest.Conf{"nodes": fan, "ipMasq": true}})
	h := l.Hosts[0]
	h.WriteFile(t, "/run/systemd/system/ovs-vswitchd.service.d/50-ovs-gre.conf", "[Service]\n") // flows are put back
	before := cnitest.MustLook(t, h)
	want(t, 0, h, "validate", conflist)
	upAll(t, l)
	if r := want(t, 0, h, "up"); r.out != "" {
		t.Errorf("a second up: %s", r.out)
	}
	cs := cnitest.AddAll(t, l, "ovsnet")
	cnitest.AllReach(t, cs)
	if r := want(t, 0, h, "status"); !strings.Contains(r.out, "node 172.16.32.100, its peers are the hosts in 172.16.0.0/16") || !strings.Contains(r.out, "gre to all peers") {
		t.Errorf("status: %s", r.out)
	}
	d := see(t, h, nil)
	d.fine(t)
	if raw, _ := json.Marshal(d.list); !strings.Contains(string(raw), "with the containers of 10.32.100.0/24; its peers are the hosts in 172.16.0.0/16") {
		t.Errorf("doctor: %s", raw)
	}

	// The source is the container's own: nothing is masqueraded on the way to a peer.
	seen := testnet.CaptureIn(t, cs[1], "eth0", "icmp")
	ping(t, cs[0], cs[1], false)
	for _, line := range seen.Stop(t) {
		if strings.Contains(line, "echo request") && !strings.Contains(line, "IP 10.32.100.2 > 10.32.101.2") {
			t.Errorf("want it from 10.32.100.2: %s", line)
		}
	}

	// Whom to measure has to be said: by a host's address, or a container's.
	if r := want(t, 2, h, "ping"); !strings.Contains(r.err, "name those to measure by their addresses in 172.16.0.0/16") {
		t.Errorf("ping: %s", r.err)
	}
	for _, a := range []string{"172.16.32.101", "10.32.101.2"} {
		if r := want(t, 0, h, "ping", a, conflist); !strings.Contains(r.out, "1 of 1 peers answer everything") || !strings.Contains(r.out, "10.32.101.1") {
			t.Errorf("ping %s: %s", a, r.out)
		}
	}
	if r := want(t, 1, h, "ping", "172.16.99.9"); !strings.Contains(r.out, "0 of 1 peers") {
		t.Errorf("ping a host that is not there: %s", r.out)
	}
	for _, a := range []string{"9.9.9.9", "172.16.32.100", "fd00::1"} {
		if r := want(t, 2, h, "ping", a); !strings.Contains(r.err, a+": no peer has this address") {
			t.Errorf("ping %s: %s", a, r.err)
		}
	}

	from, to := cs[0].Addr(t, false).String(), cs[1].Addr(t, false).String()
	for _, at := range l.Hosts {
		if tr := follow(t, at, from, to); !tr.Arrives {
			t.Errorf("%s: trace: %+v", at.Name, tr)
		}
	}
	h.Shell(t, "ovs-ofctl del-flows obr0-t")
	if tr := follow(t, h, from, to); tr.Stopped != trace.StepTunnel {
		t.Errorf("without flows: %+v", tr)
	}
	// The command of plan makes the table that up would.
	for line := range strings.Lines(h.Run(t, "/opt/cni/bin/ovs-grectl", "plan")) {
		if strings.Contains(line, "ovs-ofctl") {
			h.Shell(t, line)
		}
	}
	if r := want(t, 0, h, "up"); r.out != "" {
		t.Errorf("up after plan's command: %s", r.out)
	}
	cnitest.DelAll(t, cs)
	if r := want(t, 0, h, "down"); !strings.Contains(r.out, "10.0.0.0/8") {
		t.Errorf("down: %s", r.out)
	}
	same(t, "after down", before, h)
}

// TestTraceOnePort: trace follows a packet through the port that all peers share.
func TestTraceOnePort(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		l := lab(t, 2, cnitest.Network{V6: v6, OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"ports": "one"}}})
		upAll(t, l)
		cs := cnitest.AddAll(t, l, "ovsnet")
		cnitest.AllReach(t, cs)
		for _, v6 := range []bool{false, true} {
			from, to := cs[0].Addr(t, v6).String(), cs[1].Addr(t, v6).String()
			for _, at := range l.Hosts {
				if tr := follow(t, at, from, to); !tr.Arrives {
					t.Errorf("%s: trace of %s: %+v", at.Name, to, tr)
				}
			}
		}
	}
}
