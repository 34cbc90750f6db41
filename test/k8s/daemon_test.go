package k8s

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

// patience bounds what the cluster may take for anything that has no limit of
// its own. The machines that test are slow.
const patience = 4 * time.Minute

// A daemon is a program that runs in a host until it is stopped.
type daemon struct {
	host  *testnet.Host
	argv  []string
	path  string // PATH for it, or ""
	log   string
	cmd   *exec.Cmd
	ended chan struct{}
}

// start starts a program in a host; its log is kept in dir.
func start(t testing.TB, h *testnet.Host, dir, path string, argv ...string) *daemon {
	t.Helper()
	d := &daemon{host: h, argv: argv, path: path, log: filepath.Join(dir, filepath.Base(argv[0])+".log")}
	d.start(t)
	t.Cleanup(func() {
		d.stop(t)
		if t.Failed() {
			t.Logf("%s: %s:\n%s", h.Name, filepath.Base(argv[0]), d.tail(25))
		}
	})
	return d
}

func (d *daemon) start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = d.host.Command(context.Background(), d.argv[0], d.argv[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), "HOME=/root")
	if d.path != "" {
		d.cmd.Env = append(d.cmd.Env, "PATH="+d.path+":"+os.Getenv("PATH"))
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, ended := d.cmd, make(chan struct{})
	d.ended = ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
}

// stop ends the program, if it runs, and waits for its end.
func (d *daemon) stop(t testing.TB) { d.end(t, syscall.SIGTERM) }

// kill ends it without a warning.
func (d *daemon) kill(t testing.TB) { d.end(t, syscall.SIGKILL) }

func (d *daemon) end(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if d.over() {
		return
	}
	_ = testnet.Signal(d.cmd, sig)
	select {
	case <-d.ended:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.ended
		t.Errorf("%s: %s does not end", d.host.Name, d.argv[0])
	}
}

// over says whether the program has ended.
func (d *daemon) over() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

// tail is the end of the log.
func (d *daemon) tail(lines int) string {
	raw, _ := os.ReadFile(d.log)
	all := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// ready waits until f returns nil, and fails the test when the daemon ends first.
func (d *daemon) ready(t testing.TB, f func() error) {
	t.Helper()
	testnet.Eventually(t, patience, func() error {
		if d.over() {
			t.Fatalf("%s: %s has ended:\n%s", d.host.Name, d.argv[0], d.tail(30))
		}
		return f()
	})
}
