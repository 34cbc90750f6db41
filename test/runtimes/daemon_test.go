package runtimes

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

// A daemon is a runtime's, on one host. On a real one, systemd would start it.
type daemon struct {
	host *testnet.Host
	// path is where it and its clients find programs.
	path string
	args []string
	// ready is a client's command that fails while the daemon is not up.
	ready []string

	cmd   *exec.Cmd
	ended chan struct{}
}

// start starts it and waits until it answers. It ends with the test.
func (d *daemon) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = d.host.Command(context.Background(), d.args[0], d.args[1:]...)
	d.cmd.Env = []string{"HOME=/root", "PATH=" + d.path}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, ended := d.cmd, make(chan struct{})
	d.ended = ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	testnet.Eventually(t, patience, func() error {
		select {
		case <-ended:
			t.Fatalf("%s: %s has ended:\n%s", d.host.Name, d.args[0], d.said(15))
		default:
		}
		_, err := d.output(d.ready[0], d.ready[1:]...)
		return err
	})
}

// stop ends the daemon as a service manager does. What it started goes on.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	_ = testnet.Signal(d.cmd, syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(patience):
		t.Errorf("%s: %s does not end", d.host.Name, d.args[0])
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
	if t.Failed() {
		t.Logf("%s: %s:\n%s", d.host.Name, d.args[0], d.said(15))
	}
}

func (d *daemon) log() string {
	return filepath.Join(d.host.Dir, filepath.Base(d.args[0])+".log")
}

// said is the end of its log.
func (d *daemon) said(lines int) string {
	raw, _ := os.ReadFile(d.log())
	all := strings.Split(string(raw), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// output runs a client of the daemon.
func (d *daemon) output(name string, args ...string) (string, error) {
	return output(d.host, d.path, name, args...)
}

// run is output for a client whose failure ends the test.
func (d *daemon) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := d.output(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
