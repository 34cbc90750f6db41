// Command render writes the plain manifests of deploy/kubernetes from the Helm
// chart, by Helm's own engine. It is a module of its own, so that nothing else
// has to do with Helm.
//
//	render CHART DIR
package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

// files are what is rendered, and with which values.
var files = []struct {
	name   string
	values chartutil.Values
}{
	{"ovs-gre.yaml", chartutil.Values{}},
	{"ovs-gre-openvswitch.yaml", chartutil.Values{"openvswitch": map[string]any{"enabled": true}}},
	{"uninstall.yaml", chartutil.Values{"uninstall": true}},
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: render CHART DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(chartDir, out string) error {
	c, err := loader.Load(chartDir)
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := render(c, f.values)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := os.WriteFile(filepath.Join(out, f.name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// render is one file with all manifests, in the order of the templates' names.
func render(c *chart.Chart, values chartutil.Values) (string, error) {
	release := chartutil.ReleaseOptions{Name: "ovs-gre", Namespace: "kube-system", IsInstall: true}
	// It checks the values against the chart's schema.
	all, err := chartutil.ToRenderValues(c, values, release, nil)
	if err != nil {
		return "", err
	}
	rendered, err := engine.Render(c, all)
	if err != nil {
		return "", err
	}
	names := make([]string, 0, len(rendered))
	for name, text := range rendered {
		if path.Ext(name) == ".yaml" && strings.TrimSpace(text) != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString("# Rendered from deploy/helm/ovs-gre by make manifests.\n")
	for _, name := range names {
		b.WriteString("---\n" + strings.TrimSpace(rendered[name]) + "\n")
	}
	return b.String(), nil
}
