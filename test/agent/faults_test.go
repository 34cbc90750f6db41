package agent

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestDrift: what somebody takes away or changes is back long before the
// agent would have looked of itself.
func TestDrift(t *testing.T) {
	l := lab(t, 2, 2)
	h := l.Hosts[0]
	agents := startAll(t, l)
	cs := cnitest.AddAll(t, l, network)
	for name, script := range map[string]string{
		"route":          `ip route del $(ip route show proto 121 | cut -d" " -f1)`,
		"IPv6 route":     `ip -6 route del $(ip -6 route show proto 121 | cut -d" " -f1)`,
		"neighbour":      `ip neigh flush dev obr0-t nud permanent`,
		"tunnel":         `ovs-vsctl del-port $(ovs-vsctl --bare --columns=name find port external_ids:ovs-gre.role=tunnel)`,
		"tunnel's peer":  `ovs-vsctl set interface $(ovs-vsctl --bare --columns=name find port external_ids:ovs-gre.role=tunnel) options:remote_ip=192.0.2.1`,
		"protection":     `ovs-vsctl set port $(ovs-vsctl --bare --columns=name find port external_ids:ovs-gre.role=tunnel) protected=false`,
		"tunnel bridge":  `ovs-vsctl del-br obr0-t`,
		"gateway":        `ip addr flush dev obr0 scope global`,
		"link":           `ip link set obr0-t down`,
		"bridge":         `ovs-vsctl del-br obr0`,
		"foreign change": `ip route change $(ip route show proto 121 | cut -d" " -f1) via 172.16.32.2 proto 121 src 192.168.1.1`,
	} {
		before := host(t, h)
		began := time.Now()
		h.Shell(t, script)
		restored(t, h, name, before, began)
		agents[0].ready(t)
	}
	cnitest.AllReach(t, cs)
	if n := agents[0].metric(t, "ovs_gre_agent_drift_repaired_total"); n < 11 {
		t.Errorf("%.0f repairs are counted", n)
	}
}

// TestHostEnds: what somebody does to the host's end of a running container, the
// agent takes back long before it would look of itself.
func TestHostEnds(t *testing.T) {
	l := lab(t, 2, 2)
	h := l.Hosts[0]
	startAll(t, l)
	cs := cnitest.AddAll(t, l, network)
	port := cs[0].Port()
	h.Shell(t, "ovs-vsctl add-br other -- set bridge other datapath_type="+l.Datapath)
	look := "ovs-vsctl iface-to-br " + port + " && ovs-vsctl get port " + port + " tag && ip -o link show " + port + " up | wc -l"
	before := h.Shell(t, look)
	for _, do := range []string{
		"ip link set " + port + " down", "ovs-vsctl set port " + port + " tag=7", "ovs-vsctl del-port " + port,
		"p=$(ovs-vsctl get port " + port + " _uuid); ovs-vsctl remove bridge obr0 ports $p -- add bridge other ports $p",
	} {
		h.Shell(t, do)
		testnet.Eventually(t, longest, func() error {
			out, err := h.Output(t.Context(), "sh", "-c", look)
			if err == nil && strings.TrimSpace(out) != strings.TrimSpace(before) {
				err = fmt.Errorf("after %s: %s, before %s", do, out, before)
			}
			return err
		})
	}
	cnitest.AllReach(t, cs)
}

// host is what a host has of the network.
func host(t testing.TB, h *testnet.Host) string {
	t.Helper()
	return h.Shell(t, `
		ovs-vsctl show | sed 1d | grep -v "^ *ovs_version" | sort
		ovs-vsctl --bare --columns=name find port protected=true | sort
		ip -br link | awk '/obr0/ { $2 = ""; print }' | sort
		ip -br addr | awk '/obr0/ { $2 = ""; print }' | sort
		ip route show table all proto 121
		ip -6 route show table all proto 121
		ip neigh show nud permanent | grep obr0 | sed 's/\( lladdr [^ ]*\)*\( managed extern_learn\).*/\2/' | sort || true`)
}

// TestOVSRestarts: OVS is restarted, then loses its database, then is gone for
// a while: all comes back, running containers too.
func TestOVSRestarts(t *testing.T) {
	l := lab(t, 2, 2)
	h, ctx := l.Hosts[0], context.Background()
	agents := startAll(t, l)
	cs := cnitest.AddAll(t, l, network)
	cnitest.AllReach(t, cs)
	for name, loss := range map[string]string{"restart": "true", "database lost": "rm /etc/openvswitch/conf.db"} {
		before := host(t, h)
		if err := h.StopOVS(ctx); err != nil {
			t.Fatal(err)
		}
		h.Shell(t, loss)
		if err := h.StartOVS(ctx); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		restored(t, h, name, before, began)
		agents[0].ready(t)
		cnitest.AllReach(t, cs)
	}
}

// TestReboot: after one, containers come although neither the agent nor its
// source is there; the agent then takes away what the former boot has left.
func TestReboot(t *testing.T) {
	l := lab(t, 2, 2)
	h := l.Hosts[0]
	agents := startAll(t, l)
	was := cnitest.Add(t, h, network, "was")
	agents[0].end()
	h.Shell(t, "rm "+nodesFile)
	if err := h.Reboot(context.Background()); err != nil {
		t.Fatal(err)
	}
	peer := cnitest.Add(t, l.Hosts[1], network, "peer")
	cs := []*cnitest.Container{cnitest.Add(t, h, network, "is"), peer}
	cnitest.AllReach(t, cs)
	a := start(t, h) // still without its source
	a.ready(t)
	cnitest.AllReach(t, cs)
	if out := h.Shell(t, "ls /var/lib/cni/networks/"+network); strings.Contains(out, was.Addr(t, false).String()+"\n") {
		t.Errorf("the address of a container of the former boot is not free: %s", out)
	}
	if n := a.metric(t, "ovs_gre_agent_leaked_addresses"); n != 0 {
		t.Errorf("%.0f leaked addresses", n)
	}
	// The source is back, and knows more.
	list(t, l, []*testnet.Host{h}, append(all(l), strangers(1)...))
	standing(t, h, "10.200.0.1", true)
}

// TestNonsense: a nodes file that says nonsense changes nothing, and is told.
func TestNonsense(t *testing.T) {
	l := lab(t, 2, 2)
	h := l.Hosts[0]
	a := startAll(t, l)[0]
	before := host(t, h) + h.Run(t, "cat", store)
	h.WriteFile(t, nodesFile, `[{"name":"host1","address":"nowhere"}]`)
	testnet.Eventually(t, longest, func() error {
		if body, code := a.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "nowhere") {
			return fmt.Errorf("readyz: %d %s", code, body)
		}
		return nil
	})
	if _, code := a.get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
	// It still repairs.
	h.Shell(t, `ip route del $(ip route show proto 121 | cut -d" " -f1)`)
	testnet.Eventually(t, longest, func() error {
		if after := host(t, h) + h.Run(t, "cat", store); after != before {
			return fmt.Errorf("before\n%s\nafter\n%s", before, after)
		}
		return nil
	})
	list(t, l, l.Hosts, all(l))
	a.ready(t)
}

// restored waits until a host has the state before again, which it lost at began.
func restored(t *testing.T, h *testnet.Host, name, before string, began time.Time) {
	t.Helper()
	testnet.Eventually(t, longest, func() error {
		if after := host(t, h); after != before {
			return fmt.Errorf("%s: before\n%s\nafter\n%s", name, before, after)
		}
		return nil
	})
	t.Logf("%s: back after %s", name, time.Since(began).Round(time.Millisecond))
}
