package field

import (
	"encoding/json"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// only is a network's conflist with ovs-gre alone.
func only(t *testing.T, conflist string) string {
	t.Helper()
	var list cnitest.Conf
	if err := json.Unmarshal([]byte(conflist), &list); err != nil {
		t.Fatal(err)
	}
	list["plugins"] = list["plugins"].([]any)[:1]
	raw, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestRouteSyncForgotten: ADD works, and status and doctor say that nothing leads
// to the peers and which line is missing, not that the peer is at fault (none of
// eight conflists in public repositories has the line).
func TestRouteSyncForgotten(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	const says = `nothing leads to the containers of host2 (172.16.32.101): the chain lacks {"type": "route-sync"}`
	for _, segment := range []string{"host", "mesh", "container"} {
		t.Run(segment, func(t *testing.T) {
			n := cnitest.Network{OVSGRE: cnitest.Conf{"segment": segment}}
			for _, h := range l.Hosts {
				h.WriteFile(t, "/etc/cni/net.d/10-ovsnet.conflist", only(t, n.Conflist(l)))
			}
			h := l.Hosts[0]
			c := cnitest.Add(t, h, "ovsnet", "c1")
			far := cnitest.Add(t, l.Hosts[1], "ovsnet", "far")
			r := cnitest.Ctl(t, h, "status")
			has(t, "status", r.Out, "DRIFT: "+says)
			hasNot(t, "status", r.Out, "as it should be\n")
			r = cnitest.Ctl(t, h, "doctor")
			has(t, "doctor", r.Out, says)
			hasNot(t, "doctor", r.Out, "does not answer, although the peer does")

			n.Install(t, l)
			for _, h := range l.Hosts {
				if r := cnitest.Ctl(t, h, "up"); r.Code != 0 {
					t.Errorf("up: %+v", r)
				}
			}
			ping(t, c, far)
			has(t, "status with the line", cnitest.Ctl(t, h, "status").Out, "as it should be")
			cnitest.DelAll(t, []*cnitest.Container{c, far})
			for _, h := range l.Hosts {
				if r := cnitest.Ctl(t, h, "down"); r.Code != 0 {
					t.Errorf("down: %+v", r)
				}
			}
		})
	}
}

// TestRoutesByHand: whose routes are made by somebody else needs no route-sync.
func TestRoutesByHand(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	for _, h := range l.Hosts {
		h.WriteFile(t, "/etc/cni/net.d/10-ovsnet.conflist", only(t, cnitest.Network{}.Conflist(l)))
	}
	cnitest.Add(t, h, "ovsnet", "c1")
	h.Shell(t, "ip route add 192.168.2.0/24 via 172.16.32.101 dev obr0-t onlink; ip -6 route add fd92:2::/64 dev obr0-t")
	hasNot(t, "status", cnitest.Ctl(t, h, "status").Out, "nothing leads")
}

// TestTwoFilesOfOneNetwork: the first counts, as for runtimes; the second is told
// and has no effect (ocicni#57, calico#1388: up did both, and the stale one won).
func TestTwoFilesOfOneNetwork(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	h.WriteFile(t, "/etc/cni/net.d/20-old.conflist", cnitest.Network{OVSGRE: cnitest.Conf{"bridge": "obr9"}}.Conflist(l))
	h.WriteFile(t, "/etc/cni/net.d/15-bridge.conf", `{"cniVersion":"1.0.0","name":"other","type":"bridge"}`)
	const says = "/etc/cni/net.d/20-old.conflist: ignored: /etc/cni/net.d/10-ovsnet.conflist names network ovsnet too, and comes first"
	tell := func(args ...string) cnitest.Reply {
		t.Helper()
		r := cnitest.Ctl(t, h, args...)
		if r.Code != 0 {
			t.Errorf("%v: %+v", args, r)
		}
		has(t, args[0], r.Err, says)
		return r
	}
	tell("up")
	links := h.Shell(t, "ip -o link")
	has(t, "links", links, "obr0:")
	hasNot(t, "links", links, "obr9")
	if out := tell("up").Out; out != "" {
		t.Errorf("a second up does something:\n%s", out)
	}
	hasNot(t, "status", tell("status").Out, "20-old")
	has(t, "doctor", cnitest.Ctl(t, h, "doctor").Out, says, "mv /etc/cni/net.d/20-old.conflist /etc/cni/net.d/20-old.conflist.off")
	tell("down")
}
