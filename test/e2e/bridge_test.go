package e2e

import (
	"strings"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestBridgeRenamed: another bridge in the conflist does not cut off the
// containers that are on the one before, and is taken once they are gone.
func TestBridgeRenamed(t *testing.T) {
	l := lab(t, 2)
	cnitest.Network{}.Install(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	cnitest.Network{OVSGRE: cnitest.Conf{"bridge": "obr9"}}.Install(t, l)
	late := &cnitest.Container{Netns: l.Hosts[0].NewNetns(t, "late"), Network: "ovsnet", IfName: "eth0"}
	err := late.Call("add")
	if err == nil || !strings.Contains(err.Error(), `bridge "obr9"`) || !strings.Contains(err.Error(), "obr0") {
		t.Errorf("ADD: %v, want a refusal that names both bridges", err)
	}
	cnitest.AllReach(t, cs)
	if err := cs[0].Call("del"); err != nil {
		t.Fatal(err)
	}
	if err := late.Call("add"); err != nil {
		t.Fatal(err)
	}
	if bridges := l.Hosts[0].Run(t, "ovs-vsctl", "list-br"); strings.Contains(bridges, "obr0") || !strings.Contains(bridges, "obr9") {
		t.Errorf("bridges: %q", bridges)
	}
	if err := late.Call("del"); err != nil {
		t.Error(err)
	}
}
