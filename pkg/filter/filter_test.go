package filter

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/host"
	"ovs-gre-cni/pkg/state"
)

// newNetns puts the test into a network namespace of its own. Its thread is
// never unlocked, so the runtime ends it with the test, and the kernel the
// namespace with the thread.
func newNetns(t testing.TB, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacks(t, "needs root, to make network namespaces")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			lacks(t, "no "+p+" on this machine: apt-get install nftables iptables iproute2 iputils-ping")
		}
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// lacks skips a test that this machine cannot run; in CI that is a failure.
func lacks(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// sh runs a script in the test's namespace and returns what it prints.
func sh(t testing.TB, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// ruleset is what nft lists, without the counters' values.
func ruleset(t testing.TB) string {
	t.Helper()
	return sh(t, "nft -s list ruleset")
}

func wanted(objs ...state.Object) state.Set {
	s := state.Set{}
	s.Put(objs...)
	return s
}

func ensure(t testing.TB, b host.Backend, want state.Set) []state.Change {
	t.Helper()
	changes, err := host.Ensure(context.Background(), want, b)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func prune(t testing.TB, b host.Backend, want state.Set) []state.Change {
	t.Helper()
	changes, err := host.Prune(context.Background(), want, b)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// drift is what CHECK would say; "" is nothing.
func drift(t testing.TB, b host.Backend, want state.Set) string {
	t.Helper()
	changes, err := host.Check(context.Background(), want, b)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range changes {
		lines = append(lines, c.Drift())
	}
	return strings.Join(lines, "\n")
}
