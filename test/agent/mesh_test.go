package agent

import (
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestMesh: agents alone make a network of three hosts.
func TestMesh(t *testing.T) {
	l := lab(t, 3, 3)
	startAll(t, l)
	cs := cnitest.AddAll(t, l, network)
	cnitest.AllReach(t, cs)
}
