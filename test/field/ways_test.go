package field

import (
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestPeerWithoutRoute: one peer that no route leads to is a note in status and
// a finding of doctor's; the first ADD, up, the other peers and what is there
// already do not suffer (hostile.md row 14).
func TestPeerWithoutRoute(t *testing.T) {
	t.Parallel()
	l := lab(t, 3)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	far := cnitest.Add(t, l.Hosts[1], "ovsnet", "far")
	h.Shell(t, "ip route add unreachable "+l.Hosts[2].Addr4.String())
	ping(t, cnitest.Add(t, h, "ovsnet", "c1"), far)
	if r := cnitest.Ctl(t, h, "up"); r.Code != 0 {
		t.Errorf("up: %+v", r)
	}
	who := fmt.Sprintf("this host has no route to host3 (%s)", l.Hosts[2].Addr4)
	r := cnitest.Ctl(t, h, "status")
	has(t, "status", r.Out, "note: "+who, "as it should be")
	if r.Code != 0 {
		t.Errorf("status: exit %d", r.Code)
	}
	has(t, "doctor", cnitest.Ctl(t, h, "doctor").Out, "FAIL  peers (ovsnet): "+who, fmt.Sprintf("ip route get %s from %s", l.Hosts[2].Addr4, h.Addr4))
	ping(t, cnitest.Add(t, h, "ovsnet", "c2"), far)
	h.Shell(t, "ip route del unreachable "+l.Hosts[2].Addr4.String())
	hasNot(t, "status", cnitest.Ctl(t, h, "status").Out, "no route")
}

// TestWayByPolicy: where a rule for the tunnels' source address alone leads to
// the peers, each look-up and each probe goes from that address (libvma#512,
// cilium#14339: "no route", and doctor's pings without a source).
func TestWayByPolicy(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	far := cnitest.Add(t, l.Hosts[1], "ovsnet", "far")
	link := h.UnderlayLink
	h.Shell(t, fmt.Sprintf(`ip route add 172.16.32.0/24 dev %[1]s src %[2]s table 100
ip rule add from %[2]s lookup 100
ip route del 172.16.32.0/24 dev %[1]s
ip route add unreachable 172.16.32.0/24`, link, h.Addr4))
	c := cnitest.Add(t, h, "ovsnet", "c1")
	if mtu := c.Shell(t, "ip -o link show eth0 | grep -o 'mtu [0-9]*'"); strings.TrimSpace(mtu) != "mtu 1462" {
		t.Errorf("in the container: %s", mtu)
	}
	_ = far
	out := cnitest.Ctl(t, h, "doctor", "-v").Out
	for _, check := range []string{"peers", "path MTU"} {
		has(t, "doctor", out, "ok    "+check+" (ovsnet)")
	}
	has(t, "status", cnitest.Ctl(t, h, "status").Out, "as it should be")
}

// TestLinkNamedAsTransitLink: in segment mesh there is no transit link; a link that
// somebody has given its name carries no routes of ours.
func TestLinkNamedAsTransitLink(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	for _, h := range l.Hosts {
		h.Shell(t, "ip link add obr0-t type bridge; ip link set obr0-t up")
	}
	cnitest.Network{OVSGRE: cnitest.Conf{"segment": "mesh"}}.Install(t, l)
	a, b := cnitest.Add(t, l.Hosts[0], "ovsnet", "a"), cnitest.Add(t, l.Hosts[1], "ovsnet", "b")
	ping(t, a, b)
	ping(t, l.Hosts[0], b)
	hasNot(t, "routes", l.Hosts[0].Shell(t, "ip route; ip -6 route show proto 121"), "obr0-t")
}
