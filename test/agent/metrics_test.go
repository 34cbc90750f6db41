package agent

import (
	"fmt"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestMetrics: they tell what is there, and what is wrong with it.
func TestMetrics(t *testing.T) {
	l := lab(t, 3, 3)
	h := l.Hosts[0]
	a := startAll(t, l)[0]
	// A simulated host's boot is a second ahead, so that what it had before is older.
	// What a container gets until then would be freed as of a former boot.
	testnet.Eventually(t, longest, func() error {
		_, err := h.Output(t.Context(), "sh", "-c", `[ "$(date +%s)" -ge "$(sed -n 's/^btime //p' /proc/stat)" ]`)
		return err
	})
	cnitest.Add(t, h, network, "stays")
	goes := cnitest.Add(t, h, network, "goes")
	a.idle(t)
	tells(t, a, map[string]float64{
		"peers": 2, "nodes_left_out": 0, `tunnels{state="up"}`: 2, `tunnels{state="down"}`: 0, `tunnels{state="error"}`: 0,
		`routes{state="ok"}`: 4, `routes{state="missing"}`: 0, `routes{state="wrong"}`: 0,
		"port_errors": 0, "leaked_leases": 0, "leaked_addresses": 0, "drift_repaired_total": 0, `passes_total{result="error"}`: 0,
	})
	made := a.metric(t, "ovs_gre_agent_changes_total")
	if made < 20 {
		t.Errorf("%.0f changes made a network", made)
	}
	h.Shell(t, `ovs-vsctl --no-wait add-port obr0 ogbad -- set interface ogbad external_ids:ovs-gre.network=pods`)
	tells(t, a, map[string]float64{"port_errors": 1})
	h.Shell(t, `ovs-vsctl del-port ogbad`)
	tells(t, a, map[string]float64{"port_errors": 0})
	// A container whose namespace goes without DEL; a route that goes, too.
	goes.Delete(t)
	h.Shell(t, `ip route del $(ip route show proto 121 | head -1 | cut -d" " -f1)`)
	tells(t, a, map[string]float64{"leaked_leases": 1, "leaked_addresses": 2, "drift_repaired_total": 1, "changes_total": made + 1, `routes{state="ok"}`: 4})
	// What the DEL that comes late takes away is not there any more.
	if err := goes.Call("del"); err != nil {
		t.Error(err)
	}
	tells(t, a, map[string]float64{"leaked_leases": 0, "leaked_addresses": 0})
}

// tells waits until the agent's metrics have these values.
func tells(t testing.TB, a *agent, want map[string]float64) {
	t.Helper()
	testnet.Eventually(t, longest, func() error {
		for name, v := range want {
			if have := a.metric(t, "ovs_gre_agent_"+name); have != v {
				return fmt.Errorf("%s is %v, want %v", name, have, v)
			}
		}
		return nil
	})
}
