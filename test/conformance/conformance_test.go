package conformance_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/test/cnitest"
	"ovs-gre-cni/test/conformance"
)

// total counts over all chains of this run of tests.
var total struct{ passed, failed int }

func TestMain(m *testing.M) {
	code := m.Run()
	if total.passed+total.failed > 0 {
		fmt.Printf("conformance: %d passed, %d failed\n", total.passed, total.failed)
	}
	os.Exit(code)
}

// nodes are the lab's host and a peer that nobody needs to answer for.
var nodes = []cnitest.Conf{
	{"name": "host1", "address": "172.16.32.100", "subnets": []string{"192.168.1.0/24", "fd92:1::/64"}},
	{"name": "host2", "address": "172.16.32.101", "subnets": []string{"192.168.2.0/24", "fd92:2::/64"}},
}

// ranges are those of host1, for IPAM plugins that are not told by ovs-gre.
var ranges = [][]cnitest.Conf{{{"subnet": "192.168.1.0/24"}}, {{"subnet": "fd92:1::/64"}}}

func ovsGRE() cnitest.Conf {
	return cnitest.Conf{
		"type": "ovs-gre", "nodes": nodes, "ipMasq": true, "ipam": cnitest.Conf{"type": "host-local", "ranges": ranges},
		"capabilities": cnitest.Conf{"ips": true, "mac": true, "ipRanges": true},
	}
}

// bridge has IPv4 alone: it would wait a second and more for each IPv6 address.
func bridge() cnitest.Conf {
	return cnitest.Conf{
		"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "ipam": cnitest.Conf{"type": "host-local", "ranges": ranges[:1]},
		"capabilities": cnitest.Conf{"ips": true, "mac": true},
	}
}

func run(t *testing.T, name string, plugins ...cnitest.Conf) *conformance.Report {
	t.Helper()
	raw, err := json.Marshal(cnitest.Conf{"cniVersion": "1.1.0", "name": "confnet", "plugins": plugins})
	if err != nil {
		t.Fatal(err)
	}
	bin := cnitest.BinDir(t)
	o := conformance.Options{}
	if v := os.Getenv("OVSGRE_CONFORMANCE"); v != "" {
		o.Versions = strings.Split(v, ",")
	}
	r, err := conformance.Run(t.Context(), conformance.Chain{Name: name, Conflist: raw, Bin: bin, Tools: bin}, o)
	if r != nil {
		fmt.Println(r.Text())
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// clean wants no clause to fail.
func clean(t *testing.T, r *conformance.Report) {
	t.Helper()
	passed, failed := r.Count()
	total.passed, total.failed = total.passed+passed, total.failed+failed
	if passed < 80*len(r.Versions)/4 {
		t.Errorf("%d clauses passed: that is not all of them", passed)
	}
	for _, l := range r.Lines {
		for _, v := range r.Versions {
			if o := l.Outcomes[v]; o.Err != nil {
				t.Errorf("%s in version %s: %v", l.ID, v, o.Err)
			}
		}
	}
}

func TestOVSGRE(t *testing.T) { clean(t, run(t, "ovs-gre", ovsGRE())) }

func TestOVSGREAndRouteSync(t *testing.T) {
	clean(t, run(t, "ovs-gre, route-sync", ovsGRE(), cnitest.Conf{"type": "route-sync"}))
}

// TestBridge runs on a plugin that others wrote: what it fails it does fail.
func TestBridge(t *testing.T) {
	fails(t, run(t, "bridge", bridge()), bridgeFails)
}

// TestBridgeAndRouteSync: route-sync adds nothing to what bridge fails.
func TestBridgeAndRouteSync(t *testing.T) {
	nodes := slices.Clone(nodes)
	for i, n := range nodes {
		nodes[i] = cnitest.Conf{"name": n["name"], "address": n["address"], "subnets": n["subnets"].([]string)[:1]}
	}
	fails(t, run(t, "bridge, route-sync (direct)", bridge(), cnitest.Conf{"type": "route-sync", "mode": "direct", "nodes": nodes}), bridgeFails)
}

// fails wants these clauses to fail and no others.
func fails(t *testing.T, r *conformance.Report, want map[string]string) {
	t.Helper()
	var is, should []string
	for id := range r.Failed() {
		is = append(is, id)
	}
	for id := range want {
		should = append(should, id)
	}
	slices.Sort(is)
	slices.Sort(should)
	if d := cmp.Diff(should, is); d != "" {
		t.Errorf("clauses that fail (-want +got):\n%s", d)
	}
}

// bridgeFails are the clauses that containernetworking's bridge 1.9.1 fails, and why.
var bridgeFails = map[string]string{}
