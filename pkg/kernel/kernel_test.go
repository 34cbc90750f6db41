package kernel

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot skips where namespaces cannot be made; in CI that is a failure.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root, to make network namespaces")
	}
	t.Skip("needs root, to make network namespaces")
}

// inNetns puts the test's goroutine into a new network namespace, on a thread
// that dies with it.
func inNetns(t testing.TB) context.Context {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	ip(t, "link set lo up")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// container makes another namespace, which ends with the test.
func container(t testing.TB) *Netns {
	t.Helper()
	path := make(chan string)
	end := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		p, _ := os.Readlink("/proc/thread-self")
		path <- "/proc/" + p + "/ns/net"
		<-end
	}()
	n, err := OpenNetns(<-path)
	close(end)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	if err := n.Do(func() error { return ipErr("link set lo up") }); err != nil {
		t.Fatal(err)
	}
	return n
}

// withPair is inNetns with a container that has a veth pair.
func withPair(t testing.TB) (context.Context, *Netns) {
	t.Helper()
	ctx := inNetns(t)
	n := container(t)
	if err := AddVeth(ctx, pair, n); err != nil {
		t.Fatal(err)
	}
	return ctx, n
}

// ip runs ip in the namespace of this thread.
func ip(t testing.TB, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

func ipErr(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return &os.SyscallError{Syscall: "ip " + args + ": " + string(out), Err: err}
	}
	return nil
}

// ipIn runs ip in a container.
func ipIn(t testing.TB, n *Netns, args string) string {
	t.Helper()
	var out string
	err := n.Do(func() error {
		b, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		out = string(b)
		return err
	})
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return out
}

func prefixes(s ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range s {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

func addresses(s ...string) []netip.Addr {
	var list []netip.Addr
	for _, a := range s {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}
