package firewall

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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

// listing is what nft lists, without the counters' values.
func listing(t testing.TB) string {
	t.Helper()
	return sh(t, "nft -s list ruleset")
}

var _ state.Backend = (*Backend)(nil)

func wanted(objs ...state.Object) state.Set {
	s := state.Set{}
	s.Put(objs...)
	return s
}

// changes are what lies between want and what is. (Package rundir would observe
// on a thread of its own, which is in the machine's namespace.)
func changes(t testing.TB, b *Backend, want state.Set) []state.Change {
	t.Helper()
	have, err := b.Observe(context.Background(), want)
	if err != nil {
		t.Fatal(err)
	}
	return state.Diff(want, have)
}

// ensure does what state.CreateAndUpdate does.
func ensure(t testing.TB, b *Backend, want state.Set) []state.Change {
	t.Helper()
	return apply(t, b, changes(t, b, want), func(c state.Change) bool { return c.New == nil })
}

// prune does what state.Prune does.
func prune(t testing.TB, b *Backend, want state.Set) []state.Change {
	t.Helper()
	return apply(t, b, changes(t, b, want), func(c state.Change) bool { return c.New != nil })
}

func apply(t testing.TB, b *Backend, changes []state.Change, but func(state.Change) bool) []state.Change {
	t.Helper()
	changes = slices.DeleteFunc(changes, but)
	if err := b.Apply(context.Background(), changes); err != nil {
		t.Fatal(err)
	}
	return changes
}

// drift is what CHECK would say; "" is nothing.
func drift(t testing.TB, b *Backend, want state.Set) string {
	t.Helper()
	var lines []string
	for _, c := range changes(t, b, want) {
		lines = append(lines, c.Drift())
	}
	return strings.Join(lines, "\n")
}
