package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestBinaries holds the plugins small: every call starts them anew. What is
// linked shows in the table of functions, which stripping leaves.
func TestBinaries(t *testing.T) {
	bin := cnitest.BinDir(t)
	for plugin, most := range map[string]int{"ovs-gre": 6 << 20, "route-sync": 6_000_000} {
		data, err := os.ReadFile(filepath.Join(bin, plugin))
		if err != nil {
			t.Fatal(err)
		}
		if len(data) >= most {
			t.Errorf("%s has %d bytes, want less than %d", plugin, len(data), most)
		}
		if !bytes.Contains(data, []byte("ovs-gre-cni/pkg/config.Parse")) {
			t.Errorf("%s: the names of its functions cannot be read", plugin)
		}
		for _, heavy := range []string{
			"github.com/ovn-org/libovsdb/client", "github.com/prometheus/", "k8s.io/client-go", "k8s.io/apimachinery",
			"go.opentelemetry.io/", "google.golang.org/", "net/http.",
		} {
			if bytes.Contains(data, []byte(heavy)) {
				t.Errorf("%s links %s", plugin, heavy)
			}
		}
	}
}

// TestTemplates: no program executes a template. Templates call methods by their
// names, so the linker would keep every method of every type: 20 MB in the agent.
func TestTemplates(t *testing.T) {
	bin := cnitest.BinDir(t)
	for _, program := range []string{"ovs-gre", "route-sync", "ovs-grectl", "ovs-gre-agent"} {
		data, err := os.ReadFile(filepath.Join(bin, program))
		if err != nil {
			t.Fatal(err)
		}
		for _, function := range []string{"text/template.(*Template).Execute", "html/template.(*Template).Execute"} {
			if bytes.Contains(data, []byte(function)) {
				t.Errorf("%s links %s", program, function)
			}
		}
	}
}
