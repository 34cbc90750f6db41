package e2e

import (
	"encoding/json"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestVersions looks at the results in each version of the specification, of
// both plugins.
func TestVersions(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	for _, tt := range []struct {
		version     string
		ipVersion   bool // ips have the key version
		mtu, checks bool // interfaces have the key mtu; there is CHECK
	}{
		{version: "0.3.1", ipVersion: true},
		{version: "0.4.0", ipVersion: true, checks: true},
		{version: "1.0.0", checks: true},
		{version: "1.1.0", checks: true, mtu: true},
	} {
		t.Run(tt.version, func(t *testing.T) {
			n := cnitest.Network{Version: tt.version}
			c := h.NewNetns(t, "c1")
			out, err := call(c, "ovs-gre", "ADD", cnitest.PluginConf(t, n.Conflist(l), "ovs-gre", nil))
			must(t, err)
			prev := cnitest.Conf{"prevResult": json.RawMessage(out)}
			passed, err := call(c, routeSync, "ADD", cnitest.PluginConf(t, n.Conflist(l), routeSync, prev))
			must(t, err)
			for _, out := range []string{out, passed} {
				shape(t, out, tt.version, tt.ipVersion, tt.mtu)
			}
			for _, plugin := range []string{"ovs-gre", routeSync} {
				conf := cnitest.PluginConf(t, n.Conflist(l), plugin, prev)
				if _, err := call(c, plugin, "CHECK", conf); (err == nil) != tt.checks {
					t.Errorf("%s CHECK: %v", plugin, err)
				}
			}
			for _, plugin := range []string{routeSync, "ovs-gre"} {
				conf := cnitest.PluginConf(t, n.Conflist(l), plugin, prev)
				if _, err := call(c, plugin, "DEL", conf); err != nil {
					t.Errorf("%s DEL: %v", plugin, err)
				}
			}
			c.Delete(t)
			// And as a runtime calls them.
			n.Install(t, l)
			cs := one(t, l, "ovsnet")
			both(t, cs[0], cs[1])
			for _, c := range cs {
				del(t, c)
			}
		})
	}
}

// shape looks at a result as JSON.
func shape(t *testing.T, out, version string, ipVersion, mtu bool) {
	t.Helper()
	var r struct {
		CNIVersion string
		Interfaces []map[string]any
		IPs        []map[string]any
		Routes     []map[string]any
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.CNIVersion != version || len(r.Interfaces) != 3 || len(r.IPs) != 2 || len(r.Routes) != 2 {
		t.Errorf("want cniVersion %s, three interfaces, two addresses, two routes: %s", version, out)
	}
	for i, link := range r.Interfaces {
		if _, has := link["mtu"]; has != mtu {
			t.Errorf("interface %d: mtu: %v: %s", i, has, out)
		}
		if link["name"] == "" || link["mac"] == "" {
			t.Errorf("interface %d has no name or mac: %s", i, out)
		}
		if sandbox, has := link["sandbox"]; has != (i == 2) {
			t.Errorf("interface %d: sandbox %v: %s", i, sandbox, out)
		}
	}
	for i, want := range []string{"4", "6"} {
		got, has := r.IPs[i]["version"]
		if has != ipVersion || has && got != want {
			t.Errorf("address %d: version %v: %s", i, got, out)
		}
		if r.IPs[i]["interface"] != 2.0 || r.IPs[i]["gateway"] == nil {
			t.Errorf("address %d: interface or gateway is wrong: %s", i, out)
		}
	}
}
