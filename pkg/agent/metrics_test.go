package agent

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"ovs-gre-cni/test/golden"
)

var (
	described = regexp.MustCompile(`fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)", .*variableLabels: \{([^}]*)\}`)
	mentioned = regexp.MustCompile(namespace + `_[a-z_]+`)
)

// descriptions are our metrics by their names: a row of the table each.
func descriptions(t *testing.T) map[string]string {
	t.Helper()
	m := newMetrics(&Agent{Options: Options{Log: slog.New(slog.DiscardHandler)}})
	all := map[string]string{}
	for _, c := range []prometheus.Collector{m, m.passes, m.duration, m.changes, m.drift, m.probes, m.trips, buildInfo("")} {
		descs := make(chan *prometheus.Desc, 100)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			f := described.FindStringSubmatch(d.String())
			if f == nil {
				t.Fatalf("a description of another form: %s", d)
			}
			name, label := f[1], f[3]
			if label == "" && strings.Contains(d.String(), "version=") {
				label = "version"
			}
			if label != "" {
				label = "`" + label + "`"
			}
			all[name] = fmt.Sprintf("| `%s` | %s | %s |\n", name, label, strings.ReplaceAll(f[2], `\"`, `"`))
		}
	}
	return all
}

// TestMetricsDocumented keeps the table of docs/monitoring.md.
func TestMetricsDocumented(t *testing.T) {
	const file = "../../docs/monitoring.md"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), "<!-- metrics -->\n")
	_, after, ok2 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 {
		t.Fatalf("%s: no table between its marks", file)
	}
	all := descriptions(t)
	rows := []string{"| metric | label | meaning |\n|---|---|---|\n"}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		rows = append(rows, all[name])
	}
	golden.Compare(t, file, before+"<!-- metrics -->\n"+strings.Join(rows, "")+"<!-- end -->"+after)
}

// TestMonitoring: dashboard and alert rules ask for metrics that there are, and
// for labels that these have.
func TestMonitoring(t *testing.T) {
	all := descriptions(t)
	for _, file := range []string{"dashboard.json", "rules.yaml"} {
		raw, err := os.ReadFile("../../deploy/helm/ovs-gre/monitoring/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(raw) {
			t.Errorf("%s is no JSON", file)
		}
		found := 0
		for _, name := range mentioned.FindAllString(string(raw), -1) {
			found++
			if base := strings.TrimSuffix(name, "_bucket"); all[base] == "" {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
		for _, f := range regexp.MustCompile(`(`+namespace+`_[a-z_]+)\{([a-z]+)(?:=|!=)\\?"`).FindAllStringSubmatch(string(raw), -1) {
			if label := f[2]; label != "instance" && !strings.Contains(all[f[1]], "`"+label+"`") {
				t.Errorf("%s: %s has no label %s", file, f[1], label)
			}
		}
		if found < 10 {
			t.Errorf("%s: %d metrics are no monitoring", file, found)
		}
	}
}
