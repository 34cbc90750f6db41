package grectl

import (
	"encoding/json"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// bridgeChain is a conflist of bridge and route-sync.
func bridgeChain(t testing.TB, subnet string, nodes []cnitest.Conf) string {
	t.Helper()
	raw, err := json.Marshal(cnitest.Conf{"cniVersion": "1.0.0", "name": "ovsnet", "plugins": []cnitest.Conf{
		{"type": "bridge", "bridge": "cni0", "isGateway": true,
			"ipam": cnitest.Conf{"type": "host-local", "subnet": subnet, "routes": []cnitest.Conf{{"dst": "0.0.0.0/0"}}}},
		{"type": "route-sync", "mode": "direct", "nodes": nodes},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestRoutesAlone: a chain of bridge and route-sync, on hosts without OVS.
func TestRoutesAlone(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 2, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	subnets := func(i int) []string { return cnitest.Subnets(i)[:1] }
	for i, h := range l.Hosts {
		h.WriteFile(t, conflist, bridgeChain(t, subnets(i)[0], cnitest.Network{Subnets: subnets}.NodeList(l)))
		h.Shell(t, "sysctl -qw net.ipv4.ip_forward=1")
	}
	h := l.Hosts[0]
	bare := cnitest.MustLook(t, h)
	// The gateway's address comes with the first container, and with it the routes.
	if r := want(t, 0, h, "up"); r.out != "" || !strings.Contains(r.err, "no routes yet") {
		t.Errorf("%s%s", r.out, r.err)
	}
	if r := want(t, 0, h, "status"); !strings.Contains(r.out, "no routes yet") {
		t.Error(r.out)
	}
	want(t, 0, h, "down")
	same(t, "up and down of nothing", bare, h)

	a, b := cnitest.Add(t, h, "ovsnet", "a"), cnitest.Add(t, l.Hosts[1], "ovsnet", "b")
	ping(t, a, b, false)
	if r := want(t, 0, h, "up"); r.out != "" {
		t.Errorf("up changed what route-sync made:\n%s", r.out)
	}
	if r := want(t, 0, h, "status"); !strings.Contains(r.out, "192.168.2.0/24  ok") {
		t.Error(r.out)
	}
	if r := want(t, 1, h, "down"); !strings.Contains(r.err, "attached") {
		t.Error(r.err)
	}
	h.Shell(t, "ip route del 192.168.2.0/24")
	if r := want(t, 1, h, "status"); !strings.Contains(r.out, "route 192.168.2.0/24 is missing") {
		t.Error(r.out)
	}
	if r := want(t, 0, h, "up"); !strings.HasPrefix(r.out, "+ ip route replace 192.168.2.0/24 via 172.16.32.101 src 192.168.1.1") {
		t.Error(r.out)
	}
	ping(t, a, b, false)
	if err := a.Call("del"); err != nil {
		t.Fatal(err)
	}
	// up has made it persistent: the last container leaves it.
	ping(t, h, b, false)
	script := want(t, 0, h, "plan").out
	if !strings.Contains(script, "\nip route replace 192.168.2.0/24 via 172.16.32.101") || strings.Contains(script, "ovs-vsctl") {
		t.Error(script)
	}
	see(t, h, nil).fine(t)
	if r := want(t, 0, h, "gc"); r.out != "" {
		t.Error(r.out)
	}
	if r := want(t, 0, h, "down"); !strings.HasPrefix(r.out, "- ip route replace 192.168.2.0/24") {
		t.Error(r.out)
	}
	a.Delete(t)
	h.Shell(t, "ip link del cni0")
	same(t, "all of it", bare, h)
}

// TestDirectBehindDrop: on hosts that drop what they forward route-sync lets in
// what comes by its routes, and nobody else, behind a bridge and behind links
// of single containers.
func TestDirectBehindDrop(t *testing.T) {
	for _, plugin := range []cnitest.Conf{{"type": "bridge", "bridge": "cni0", "isGateway": true}, {"type": "ptp"}} {
		t.Run(plugin["type"].(string), func(t *testing.T) {
			l := testnet.New(t, testnet.Options{Hosts: 2, NoOVS: true, PluginDir: cnitest.BinDir(t)})
			subnets := func(i int) []string { return cnitest.Subnets(i)[:1] }
			for i, h := range l.Hosts {
				plugin["ipam"] = cnitest.Conf{"type": "host-local", "subnet": subnets(i)[0], "routes": []cnitest.Conf{{"dst": "0.0.0.0/0"}}}
				raw, err := json.Marshal(cnitest.Conf{"cniVersion": "1.0.0", "name": "ovsnet", "plugins": []cnitest.Conf{
					plugin, {"type": "route-sync", "mode": "direct", "nodes": cnitest.Network{Subnets: subnets}.NodeList(l)},
				}})
				if err != nil {
					t.Fatal(err)
				}
				h.WriteFile(t, conflist, string(raw))
				h.Shell(t, "sysctl -qw net.ipv4.ip_forward=1; iptables -P FORWARD DROP")
			}
			h := l.Hosts[0]
			rules := func() string { return h.Shell(t, "iptables -S") }
			before := rules()
			a, a2, b := cnitest.Add(t, h, "ovsnet", "a"), cnitest.Add(t, h, "ovsnet", "a2"), cnitest.Add(t, l.Hosts[1], "ovsnet", "b")
			ping(t, a, b, false)
			ping(t, b, a2, false)
			if err := a.Call("check"); err != nil {
				t.Error(err)
			}
			if list := rules(); strings.Count(list, `"ovs-gre:ovsnet:routes"`) != 4 || strings.Count(list, "-s 192.168.2.0/24 -d 192.168.1.0/24 -i "+h.UnderlayLink) != 1 {
				t.Errorf("want two accepts in, from the peer's subnet and its address, and two out:\n%s", list)
			}
			stranger := "ip route replace 192.168.1.0/24 via " + h.Addr4.String() + "; ping -c 2 -i 0.2 -W 1 " + a.Addr(t, false).String()
			if out, err := l.Underlay.Output(t.Context(), "sh", "-ec", stranger); err == nil {
				t.Errorf("a stranger is answered: %s", out)
			}
			h.Shell(t, "iptables -F FORWARD")
			if err := a.Call("check"); err == nil || !strings.Contains(err.Error(), "the policy DROP of chain FORWARD of table ip filter drops it") {
				t.Errorf("CHECK without the accepts: %v", err)
			}
			want(t, 0, h, "up")
			ping(t, b, a, false)
			want(t, 0, h, "down", "--force")
			if got := rules(); got != before {
				t.Errorf("down left\n%s", got)
			}
		})
	}
}

// meanwhile runs up and gc until all containers' calls have ended.
func meanwhile(t *testing.T, h *testnet.Host, cs []*cnitest.Container, verb string) {
	t.Helper()
	done := make(chan error, len(cs))
	for _, c := range cs {
		go func() { done <- c.Call(verb) }()
	}
	for left := len(cs); left > 0; {
		select {
		case err := <-done:
			left--
			if err != nil {
				t.Error(err)
			}
		default:
			want(t, 0, h, "up")
			want(t, 0, h, "gc")
		}
	}
}

// TestBesideADD runs up and gc again and again while containers come and go.
func TestBesideADD(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h := l.Hosts[0]
	const n = 8
	cs := make([]*cnitest.Container, n)
	for i := range cs {
		cs[i] = &cnitest.Container{Netns: h.NewNetns(t, "c"+string(rune('a'+i))), Network: "ovsnet", IfName: "eth0"}
	}
	meanwhile(t, h, cs, "add")
	want(t, 0, h, "status")
	peer := cnitest.Add(t, l.Hosts[1], "ovsnet", "peer")
	for _, c := range cs {
		if t.Failed() {
			return
		}
		ping(t, c, peer, false)
	}
	meanwhile(t, h, cs, "del")
	want(t, 0, h, "status")
	want(t, 0, h, "down")
}
