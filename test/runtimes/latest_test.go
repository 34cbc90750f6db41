package runtimes

import (
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
)

// refused gives a host's ovsnet cniVersion 1.1.0 while f runs a container with a
// runtime that cannot take it. The runtime says so after ADD, and calls DEL.
// doctor says so beforehand.
func refused(t *testing.T, h *testnet.Host, f func() error) {
	t.Helper()
	const conflist = "/etc/cni/net.d/10-ovsnet.conflist"
	h.Shell(t, `sed -i 's/"cniVersion": "1.0.0"/"cniVersion": "1.1.0"/' `+conflist)
	defer h.Shell(t, `sed -i 's/"cniVersion": "1.1.0"/"cniVersion": "1.0.0"/' `+conflist)
	if out, _ := h.Output(t.Context(), "/opt/cni/bin/ovs-grectl", "doctor"); !strings.Contains(out, "cannot read results of it") {
		t.Errorf("doctor does not say that a runtime here cannot take 1.1.0:\n%s", out)
	}
	was := len(calls(t, h))
	if err := f(); err == nil || !strings.Contains(err.Error(), "unsupported CNI result version") {
		t.Errorf("want the runtime to refuse 1.1.0: %v: tell docs/runtimes.md and doctor", err)
	}
	since := verbs(calls(t, h)[was:])
	if !strings.Contains(since, "ADD") || !strings.Contains(since, "DEL") {
		t.Errorf("want ADD and DEL, there were %s", since)
	}
}
