package grectl

import (
	"strings"
	"testing"

	"ovs-gre-cni/pkg/doctor"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestDoctorVersions has runtimes on the host that say what real ones say when
// asked for their version, and a conflist that they take or do not.
func TestDoctorVersions(t *testing.T) {
	const (
		containerd16 = "containerd: containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3"
		containerd17 = "containerd: containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da"
		containerd2  = "containerd: containerd github.com/containerd/containerd/v2 v2.4.2 "
		podman43     = "podman: podman version 4.3.1"
		podman5      = "podman: podman version 5.4.2"
	)
	const old, both, latest = `"cniVersion": "1.0.0"`, `"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"]`, `"cniVersion": "1.1.0"`
	l := testnet.New(t, testnet.Options{Hosts: 1, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	h := l.Hosts[0]
	for _, tt := range []struct {
		version  string
		runtimes []string
		// seen is what doctor names; nil is nothing wrong.
		seen []string
	}{
		{latest, nil, nil},
		{latest, []string{containerd2, podman5}, nil},
		{latest, []string{containerd16}, []string{"containerd 1.6.20 (by ctr and CRI, not nerdctl)"}},
		{latest, []string{containerd17, podman5}, []string{"containerd 1.7.27"}},
		{latest, []string{containerd2, podman43}, []string{"podman 4.3.1 (with CNI"}},
		{latest, []string{containerd16, podman43}, []string{"containerd 1.6.20", "podman 4.3.1"}},
		{latest, []string{"containerd: no version here"}, nil},
		{both, []string{containerd16, podman43}, nil},
		{old, []string{containerd16, podman43}, nil},
	} {
		// The machine's own runtimes are not to be found: see runs setpriv, no more.
		h.Shell(t, `rm -rf /run/fake; mkdir /run/fake; ln -s "$(command -v setpriv)" /run/fake/`)
		for _, r := range tt.runtimes {
			program, says, _ := strings.Cut(r, ": ")
			h.WriteFile(t, "/run/fake/"+program, "#!/bin/sh\n[ \"$*\" = --version ] && echo '"+says+"'\n")
		}
		h.Shell(t, "chmod +x /run/fake/*")
		h.WriteFile(t, conflist, strings.Replace(cnitest.Network{}.Conflist(l), latest, tt.version, 1))
		bad := see(t, h, []string{"PATH=/run/fake:/opt/cni/bin"}).bad("cniVersion")
		if len(tt.seen) == 0 && len(bad) > 0 || len(tt.seen) > 0 && (len(bad) != 1 || bad[0].Level != doctor.Warn) {
			t.Fatalf("%s, %v: %+v", tt.version, tt.runtimes, bad)
		}
		if len(bad) == 0 {
			continue
		}
		for _, seen := range tt.seen {
			if !strings.Contains(bad[0].Seen, seen) {
				t.Errorf("want %q in %q", seen, bad[0].Seen)
			}
		}
		h.Shell(t, bad[0].Command)
		if bad := see(t, h, []string{"PATH=/run/fake:/opt/cni/bin"}).bad("cniVersion"); len(bad) > 0 {
			t.Errorf("after its own command: %+v", bad)
		}
	}
}
