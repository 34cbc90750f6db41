package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"sigs.k8s.io/yaml"
)

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load("../ovs-gre")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestManifests: the plain manifests are what the chart renders to.
func TestManifests(t *testing.T) {
	c := load(t)
	for _, f := range files {
		want, err := render(c, f.values)
		if err != nil {
			t.Fatal(err)
		}
		if have, err := os.ReadFile(filepath.Join("../../kubernetes", f.name)); err != nil || string(have) != want {
			t.Errorf("%s is not what the chart renders to: make manifests (%v)", f.name, err)
		}
	}
}

// TestValues: what one sets arrives.
func TestValues(t *testing.T) {
	for name, test := range map[string]struct {
		values string
		want   []string
	}{
		"spoofchk":  {"network: {spoofchk: false}", []string{`"spoofchk": false`}},
		"tunnel":    {"network: {tunnel: {type: vxlan, key: 7}, mode: auto, mtu: 1400, datapathType: netdev}", []string{`"type": "vxlan"`, `"key": 7`, `"mode": "auto"`, `"mtu": 1400`, `"datapathType": "netdev"`}},
		"wireguard": {"network: {tunnel: {type: wireguard, keepalive: 25}}", []string{`"type": "wireguard"`, `"keepalive": 25`, "verbs: [get, list, watch, patch]"}},
		"no key":    {"network: {tunnel: {type: gre}}", []string{"verbs: [get, list, watch]\n"}},
		"API":       {"apiServer: {host: 10.0.0.1, port: 6443}", []string{`{name: KUBERNETES_SERVICE_HOST, value: "10.0.0.1"}`, `{name: KUBERNETES_SERVICE_PORT, value: "6443"}`}},
		"paths":     {"paths: {cniBin: /var/lib/cni-bin, openvswitch: /var/run/ovs}", []string{"hostPath: {path: /var/lib/cni-bin,", "hostPath: {path: /var/run/ovs,", "mountPath: /var/run/ovs}", `"ovsdb": "unix:/var/run/ovs/db.sock"`}},
		"IPAM":      {"paths: {cniState: /data/cni}", []string{"hostPath: {path: /data/cni,", "mountPath: /data/cni}", `"dataDir": "/data/cni/networks"`}},
		"image":     {"image: {repository: registry.example/ovs-gre, tag: v9}", []string{"image: registry.example/ovs-gre:v9"}},
		"no probes": {"agent: {port: 0}", []string{"- --listen=\n"}},
		"monitor":   {"podMonitor: {enabled: true}", []string{"kind: PodMonitor"}},
		"no page":   {"agent: {pagePort: 0}", []string{"- --page=\n"}},
		"rules":     {"prometheusRule: {enabled: true}", []string{"kind: PrometheusRule", "alert: OVSGrePeerUnreachable", "{{ $labels.instance }}"}},
		"dashboard": {"dashboard: {enabled: true, labels: {mine: \"yes\"}}", []string{"name: ovs-gre-dashboard", `mine: "yes"`, `"uid": "ovs-gre"`}},
		"version":   {"cniVersion: 1.0.0", []string{`"cniVersion": "1.0.0"`}},
		"CIDRs":     {"network: {noMasqueradeCIDRs: [10.0.0.0/8]}", []string{`"10.0.0.0/8"`}},
	} {
		values, err := chartutil.ReadValues([]byte(test.values))
		if err != nil {
			t.Fatal(err)
		}
		text, err := render(load(t), values)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range test.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", name, want, text)
			}
		}
	}
}

// TestYAML: whatever is switched on, each document is YAML; the first is a comment.
func TestYAML(t *testing.T) {
	text, err := render(load(t), chartutil.Values{"podMonitor": on, "prometheusRule": on, "dashboard": on, "openvswitch": on})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, doc := range strings.Split(text, "\n---\n") {
		var o struct{ Kind string }
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Errorf("%v in\n%s", err, doc)
		}
		kinds[o.Kind]++
	}
	if kinds["ConfigMap"] != 2 || kinds["PrometheusRule"] != 1 || kinds["DaemonSet"] != 1 || kinds[""] != 1 {
		t.Errorf("kinds: %v", kinds)
	}
}

var on = map[string]any{"enabled": true}

// TestWrongValues: what the schema does not know is an error that names it.
func TestWrongValues(t *testing.T) {
	for _, test := range [][2]string{
		{"network: {tunel: {type: gre}}", "tunel"},
		{"network: {tunnel: {type: ipip}}", "type"},
		{"network: {bridge: much-too-long-a-name}", "bridge"},
		{"agent: {capabilities: [NET_RAW]}", "capabilities"},
		{"imagePullSecret: [x]", "imagePullSecret"},
	} {
		values, err := chartutil.ReadValues([]byte(test[0]))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := render(load(t), values); err == nil || !strings.Contains(err.Error(), test[1]) {
			t.Errorf("%s: %v", test[0], err)
		}
	}
}
