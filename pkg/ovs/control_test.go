package ovs_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/testnet"
)

// socketOf is a host's OVSDB socket, as this process sees it.
func socketOf(h *testnet.Host) string {
	return fmt.Sprintf("/proc/%d/root/run/openvswitch/db.sock", h.PID())
}

func TestControl(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 1})
	h, socket := l.Hosts[0], socketOf(l.Hosts[0])
	h.Run(t, "ovs-vsctl", "--timeout=20", "add-br", "b0", "--", "set", "bridge", "b0", "datapath_type="+l.Datapath)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if v, err := ovs.VswitchdVersion(ctx, socket); err != nil || !strings.HasPrefix(v, "ovs-vswitchd (Open vSwitch) ") {
		t.Errorf("version %q, %v", v, err)
	}
	if err := ovs.VswitchdServes(ctx, socket); err != nil {
		t.Error(err)
	}
	c, err := ovs.DialControl(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// More than are sent at once, the last ones of which are refused.
	commands := make([]ovs.Command, 200, 202)
	for i := range commands {
		commands[i] = ovs.Command{"fdb/add", "b0", "b0", "0", fmt.Sprintf("0a:00:00:00:00:%02x", i)}
	}
	answers, err := c.CallAll(ctx, append(commands, ovs.Command{"fdb/show", "none"}, ovs.Command{"fdb/none"})...)
	if err != nil || len(answers) != 202 {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	for _, a := range answers[:200] {
		if a.Err != nil {
			t.Error(a.Err)
		}
	}
	if err := answers[200].Err; !errors.Is(err, ovs.ErrRefused) || errors.Is(err, ovs.ErrNoCommand) || !strings.Contains(err.Error(), "no such bridge") {
		t.Error("a bridge that is none:", err)
	}
	if err := answers[201].Err; !errors.Is(err, ovs.ErrRefused) || !errors.Is(err, ovs.ErrNoCommand) {
		t.Error("a command that is none:", err)
	}
	if able, err := ovs.StaticFDB(ctx, socket); err != nil || !able {
		t.Errorf("StaticFDB: %v, %v", able, err)
	}
	if out, err := c.Call(ctx, "fdb/show", "b0"); err != nil || strings.Count(out, "static") != 200 {
		t.Errorf("%d static entries, %v:\n%s", strings.Count(out, "static"), err, out)
	}
}

// TestSilent: who asks an ovs-vswitchd that is stopped, hangs or is dead is told
// so long before its own time is over.
func TestSilent(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 1})
	h, socket := l.Hosts[0], socketOf(l.Hosts[0])
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, c := range []struct {
		says       string
		stop, back func(context.Context) error
	}{
		{"does not answer on its control socket", h.PauseVswitchd, h.ResumeVswitchd},
		{"ovs-vswitchd does not run", h.KillVswitchd, h.StartVswitchd},
	} {
		if err := c.stop(ctx); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		err := ovs.VswitchdServes(ctx, socket)
		if !errors.Is(err, ovs.ErrUnavailable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want %q, got %v", c.says, err)
		}
		t.Logf("%v after %v", err, time.Since(begin).Round(time.Millisecond))
		if err := c.back(ctx); err != nil {
			t.Fatal(err)
		}
		if err := ovs.VswitchdServes(ctx, socket); err != nil {
			t.Error(err)
		}
	}
}

// TestCrowd: who asks while more connections wait than the control socket's
// backlog holds waits for its turn.
func TestCrowd(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 1})
	h, socket := l.Hosts[0], socketOf(l.Hosts[0])
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sockets, err := filepath.Glob(filepath.Join(filepath.Dir(socket), "ovs-vswitchd.*.ctl"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("control sockets %q, %v", sockets, err)
	}
	if err := h.PauseVswitchd(ctx); err != nil {
		t.Fatal(err)
	}
	crowd := 0
	for {
		c, err := net.Dial("unix", sockets[0])
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		crowd++
	}
	asked := make(chan error)
	go func() {
		_, err := ovs.VswitchdVersion(ctx, socket)
		asked <- err
	}()
	if err := h.ResumeVswitchd(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err != nil {
		t.Errorf("behind %d that wait: %v", crowd, err)
	}
	t.Logf("the backlog holds %d", crowd)
}

// TestLate: a process that had no processor until its time was over does not say
// that ovs-vswitchd, which is there, cannot be reached.
func TestLate(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := ovs.DialControl(ctx, socketOf(l.Hosts[0]))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
