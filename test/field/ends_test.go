package field

import (
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestHostEndOfContainer: whatever becomes of the host's end of a running
// container, status and doctor tell, and up mends it (messages.md P3, P4: doctor
// said "all ok").
func TestHostEndOfContainer(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	far := cnitest.Add(t, l.Hosts[1], "ovsnet", "far")
	c := cnitest.Add(t, h, "ovsnet", "c1")
	port := c.Port()
	h.Shell(t, "ovs-vsctl add-br other -- set bridge other datapath_type="+l.Datapath)
	for _, do := range []string{
		"ip link set " + port + " down",
		"ovs-vsctl set port " + port + " tag=7",
		"ovs-vsctl del-port " + port,
		"ovs-vsctl del-port " + port + " -- add-port other " + port,
		"p=$(ovs-vsctl get port " + port + " _uuid); ovs-vsctl remove bridge obr0 ports $p -- add bridge other ports $p",
	} {
		h.Shell(t, do)
		has(t, "status after "+do, cnitest.Ctl(t, h, "status").Out, "DRIFT: ", port)
		has(t, "doctor after "+do, cnitest.Ctl(t, h, "doctor").Out, "FAIL  containers (ovsnet): ", port)
		if do == "ovs-vsctl del-port "+port+" -- add-port other "+port {
			// Somebody's own port by now: ours has to wait until it is gone.
			sound(t, h)
			h.Shell(t, "ovs-vsctl del-port "+port)
		}
		if r := cnitest.Ctl(t, h, "up"); r.Code != 0 {
			t.Errorf("up: %+v", r)
		}
		ping(t, c, far)
		has(t, "status", cnitest.Ctl(t, h, "status").Out, "as it should be")
		hasNot(t, "doctor", cnitest.Ctl(t, h, "doctor").Out, "FAIL  containers")
	}
}

// TestContainerNoLongerFits: after the underlay's MTU was lowered and a next
// container got less, a running one whose packets no longer fit is named with
// both sizes (messages.md P9: all said ok).
func TestContainerNoLongerFits(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	old := cnitest.Add(t, h, "ovsnet", "old")
	h.Shell(t, lowerMTU(h, 1400))
	cnitest.Add(t, h, "ovsnet", "next")
	want := "container " + old.ID() + ": the MTU of its eth0 is 1462, and 1362 is all that fits"
	r := cnitest.Ctl(t, h, "status")
	has(t, "status", r.Out, "DRIFT: "+want)
	has(t, "doctor", cnitest.Ctl(t, h, "doctor").Out, "FAIL  containers (ovsnet): 1 containers ", want)
	old.Shell(t, "ip link set eth0 mtu 1362")
	hasNot(t, "status", cnitest.Ctl(t, h, "status").Out, "DRIFT")
	hasNot(t, "doctor", cnitest.Ctl(t, h, "doctor").Out, "FAIL  containers")
}
