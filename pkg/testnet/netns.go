package testnet

import (
	"context"
	"os/exec"
	"testing"
)

// Netns is a network namespace in a host, such as a runtime makes for a
// container.
type Netns struct {
	Name string
	Path string // as seen in the host, and as a plugin gets it: /var/run/netns/NAME
	Host *Host
}

// NewNetns makes a network namespace with its loopback up, and deletes it when
// the test ends, if it still is there.
func (h *Host) NewNetns(t testing.TB, name string) *Netns {
	t.Helper()
	h.Run(t, "ip", "netns", "add", name)
	n := &Netns{Name: name, Path: "/var/run/netns/" + name, Host: h}
	t.Cleanup(func() {
		if h.PID() != 0 {
			_, _ = h.Output(context.Background(), "ip", "netns", "delete", name)
		}
	})
	n.Run(t, "ip", "link", "set", "lo", "up")
	return n
}

// Delete deletes the namespace. The links in it go in the kernel's own time.
func (n *Netns) Delete(t testing.TB) {
	t.Helper()
	n.Host.Run(t, "ip", "netns", "delete", n.Name)
}

// Command implements Runner: in the host, but for the network.
func (n *Netns) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return enter(ctx, n.Host.PID(), "/run/netns/"+n.Name, name, args)
}

// Output implements Runner.
func (n *Netns) Output(ctx context.Context, name string, args ...string) (string, error) {
	return output(n.Command(ctx, name, args...), name, args)
}

// Run implements Runner.
func (n *Netns) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return run(t, n, n.Host.Name+"/"+n.Name, name, args)
}

// Shell implements Runner.
func (n *Netns) Shell(t testing.TB, script string) string {
	t.Helper()
	return n.Run(t, "sh", "-ec", script)
}
