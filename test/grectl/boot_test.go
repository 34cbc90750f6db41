package grectl

import (
	"context"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/test/cnitest"
)

// longest bounds a wait for what is a matter of seconds on an idle machine.
const longest = 30 * time.Second

// TestReboot: after it, up alone brings the network back; what containers of
// the former boot had is gone.
func TestReboot(t *testing.T) {
	l := lab(t, 2, cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}})
	h, ctx := l.Hosts[0], context.Background()
	upAll(t, l)
	gone := cnitest.Add(t, h, "ovsnet", "gone")
	peer := cnitest.Add(t, l.Hosts[1], "ovsnet", "peer")
	ping(t, gone, peer, false)
	if err := h.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	if r := want(t, 1, h, "status"); !strings.Contains(r.out, "of a former boot") {
		t.Errorf("status:\n%s", r.out)
	}
	r := want(t, 0, h, "up")
	if strings.Count(r.out, "of a former boot") != 3 { // a port, an address of each family
		t.Errorf("up:\n%s", r.out)
	}
	want(t, 0, h, "status")
	for _, v6 := range []bool{false, true} {
		ping(t, h, peer, v6)
	}
	if out := h.Shell(t, "ovs-vsctl --bare --columns=name find interface external_ids:ovs-gre.role=container"); strings.TrimSpace(out) != "" {
		t.Errorf("ports of the former boot: %s", out)
	}
	if out := h.Shell(t, "ls /var/lib/cni/networks/ovsnet | grep -v -e lock -e last_ || true"); out != "" {
		t.Errorf("addresses that are not free: %s", out)
	}
	// The container comes again, after up has made room.
	again := cnitest.Add(t, h, "ovsnet", "again")
	ping(t, again, peer, false)
	ping(t, peer, again, true)
	if r := want(t, 0, h, "up"); r.out != "" {
		t.Errorf("up with a running container changed:\n%s", r.out)
	}
	ping(t, peer, again, false)
}

// TestDatabaseLost: conf.db is deleted under running containers, and up
// attaches them again.
func TestDatabaseLost(t *testing.T) {
	for _, lease := range []bool{true, false} {
		l := lab(t, 2, cnitest.Network{OVSGRE: cnitest.Conf{"segment": "container"}})
		h, ctx := l.Hosts[0], context.Background()
		upAll(t, l)
		a, b := cnitest.Add(t, h, "ovsnet", "a"), cnitest.Add(t, h, "ovsnet", "b")
		peer := cnitest.Add(t, l.Hosts[1], "ovsnet", "peer")
		if err := h.StopOVS(ctx); err != nil {
			t.Fatal(err)
		}
		h.Shell(t, "rm /etc/openvswitch/conf.db")
		if !lease {
			h.Shell(t, "rm -r /run/ovs-gre")
		}
		if err := h.StartOVS(ctx); err != nil {
			t.Fatal(err)
		}
		if r := want(t, 1, h, "status"); strings.Count(r.out, "DRIFT: OVS port og") != 2 {
			t.Errorf("status:\n%s", r.out)
		}
		if r := want(t, 0, h, "up"); strings.Count(r.out, " role=container ")+strings.Count(r.out, "ovs-gre.container-id=") < 2 {
			t.Errorf("up:\n%s", r.out)
		}
		want(t, 0, h, "status")
		for _, c := range []*cnitest.Container{a, b} {
			ping(t, peer, c, false)
			ping(t, c, peer, true)
			if err := c.Call("check"); err != nil {
				t.Error(err)
			}
		}
		ping(t, a, b, false)
		want(t, 1, h, "down")
		for _, c := range []*cnitest.Container{a, b} {
			if err := c.Call("del"); err != nil {
				t.Error(err)
			}
		}
		want(t, 0, h, "down")
	}
}

// TestSweep: gc removes what is left of a container whose namespace went
// without DEL, and nothing else.
func TestSweep(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h := l.Hosts[0]
	stays, goes := cnitest.Add(t, h, "ovsnet", "stays"), cnitest.Add(t, h, "ovsnet", "goes")
	before := h.Shell(t, "ls /var/lib/cni/networks/ovsnet; find /run/ovs-gre")
	if r := want(t, 0, h, "gc"); r.out != "" {
		t.Errorf("gc of nothing:\n%s", r.out)
	}
	if after := h.Shell(t, "ls /var/lib/cni/networks/ovsnet; find /run/ovs-gre"); after != before {
		t.Errorf("gc of nothing: before\n%safter\n%s", before, after)
	}
	port := goes.Result.Interfaces[1].Name
	goes.Delete(t)
	gone(t, h, port)
	if r := want(t, 1, h, "status"); !strings.Contains(r.out, "gone") {
		t.Errorf("status:\n%s", r.out)
	}
	r := want(t, 0, h, "gc")
	for _, text := range []string{"- container cnitool-", goes.Addr(t, false).String(), goes.Addr(t, true).String()} {
		if !strings.Contains(r.out, text) {
			t.Errorf("no %q in\n%s", text, r.out)
		}
	}
	want(t, 0, h, "status")
	left := h.Shell(t, "ls /var/lib/cni/networks/ovsnet; find /run/ovs-gre; ovs-vsctl show")
	for _, text := range []string{goes.Addr(t, false).String() + "\n", port} {
		if strings.Contains(left, text) {
			t.Errorf("%q is left in\n%s", text, left)
		}
	}
	ping(t, h, stays, false)
	if err := stays.Call("check"); err != nil {
		t.Error(err)
	}
	if r := want(t, 0, h, "gc"); r.out != "" {
		t.Errorf("the second gc:\n%s", r.out)
	}
	if err := stays.Call("del"); err != nil {
		t.Error(err)
	}
	if out := h.Shell(t, "ovs-vsctl list-br"); strings.Contains(out, "obr0") {
		t.Errorf("the last container left %s", out)
	}
}
