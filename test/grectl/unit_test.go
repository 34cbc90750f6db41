package grectl

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// shipped is a file of deploy/systemd.
func shipped(t testing.TB, name string) string {
	t.Helper()
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "deploy", "systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestUnit holds what the service's place in the boot depends on.
func TestUnit(t *testing.T) {
	words := map[string][]string{}
	for line := range strings.Lines(shipped(t, "ovs-gre.service")) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
			words[k] = append(words[k], strings.Fields(v)...)
		}
	}
	for key, values := range map[string][]string{
		"After":           {"openvswitch-switch.service", "openvswitch.service", "network-online.target"},
		"Before":          {"containerd.service", "docker.service", "kubelet.service"},
		"ExecStart":       {"/usr/bin/ovs-grectl", "up"},
		"Type":            {"oneshot"},
		"RemainAfterExit": {"yes"},
	} {
		for _, v := range values {
			if !slices.Contains(words[key], v) {
				t.Errorf("%s has no %s: %v", key, v, words[key])
			}
		}
	}
	if len(words["ExecStop"]) > 0 {
		t.Errorf("ExecStop=%v would cut containers off at an upgrade", words["ExecStop"])
	}
}
