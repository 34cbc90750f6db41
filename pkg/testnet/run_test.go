package testnet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCommand(t *testing.T) {
	l := New(t, Options{Hosts: 1, NoOVS: true})
	h := l.Hosts[0]
	n := h.NewNetns(t, "box")
	for _, r := range []Runner{h, n} {
		cmd := r.Command(t.Context(), "sh", "-c", `cat; echo "$WORD $$ $(readlink /proc/self/ns/net)"; exit 7`)
		cmd.Env = append(os.Environ(), "WORD=hello")
		cmd.Stdin = strings.NewReader("in ")
		out, err := cmd.Output()
		if e := (*exec.ExitError)(nil); !errors.As(err, &e) || e.ExitCode() != 7 {
			t.Error("exit status:", err)
		}
		f := strings.Fields(string(out))
		if len(f) != 4 || f[0] != "in" || f[1] != "hello" {
			t.Errorf("output: %q", out)
		} else if own, _ := os.Readlink("/proc/self/ns/net"); f[3] == own {
			t.Error("in the network namespace of the machine")
		}
		if _, err := r.Output(t.Context(), "sh", "-c", "echo why >&2; false"); err == nil || !strings.Contains(err.Error(), "why") {
			t.Errorf("error without standard error: %v", err)
		}
	}
	if got := n.Run(t, "ip", "-o", "link"); strings.Contains(got, "eth0") || !strings.Contains(got, "LOOPBACK,UP") {
		t.Errorf("links of a new namespace: %s", got)
	}
	if got := h.Run(t, "ls", n.Path); got != n.Path+"\n" {
		t.Errorf("Path: %s", got)
	}
	n.Delete(t)
	if _, err := n.Output(t.Context(), "true"); err == nil {
		t.Error("runs in a deleted namespace")
	}
}

// children are the processes of the host, without its init.
func children(t *testing.T, h *Host) string {
	t.Helper()
	return strings.TrimSpace(h.Shell(t, `for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || cat $p/comm; done 2>/dev/null | grep -v cat || :`))
}

func TestCommandEnds(t *testing.T) {
	l := New(t, Options{Hosts: 1, NoOVS: true})
	h := l.Hosts[0]
	gone := func() {
		t.Helper()
		Eventually(t, 5*time.Second, func() error {
			if left := children(t, h); strings.Contains(left, "sleep") {
				return fmt.Errorf("left: %s", left)
			}
			return nil
		})
	}
	// With its context.
	ctx, cancel := context.WithCancel(t.Context())
	cmd := h.Command(ctx, "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := Signal(cmd, 0); err != nil { // it runs
		t.Fatal(err)
	}
	cancel()
	_ = cmd.Wait()
	gone()

	// By its own wish, on a signal.
	cmd = h.Command(t.Context(), "sh", "-c", `trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done`)
	StartReady(t, cmd)
	if err := Signal(cmd, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Error("exit status:", cmd.ProcessState)
	}
	if err := Signal(cmd, syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Error("signalled what has ended:", err)
	}
	gone()
}

const childEnv = "TESTNET_CHILD"

// TestMain is also the program that TestKilled runs and kills.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
	}
	os.Exit(m.Run())
}

// child makes a lab and stays in it until it is killed.
func child() {
	go func() { // it must not outlive TestKilled either
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	ctx := context.Background()
	l, err := Start(ctx, Options{Hosts: 2})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("lab", l.Dir, l.Underlay.PID(), l.Hosts[0].PID(), l.Hosts[1].PID())
	_ = l.Hosts[0].Command(ctx, "sleep", "600").Run()
	os.Exit(1)
}

func TestKilled(t *testing.T) {
	New(t, Options{}) // skips where there can be no lab
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	var lab []string
	for in := bufio.NewScanner(out); lab == nil && in.Scan(); {
		if f := strings.Fields(in.Text()); len(f) == 5 && f[0] == "lab" {
			lab = f[1:]
		}
	}
	if lab == nil {
		t.Fatal("the child made no lab")
	}
	dir, holders := lab[0], lab[1:]
	spaces := map[string]bool{} // the labs' pid namespaces
	for _, pid := range holders {
		ns, err := os.Readlink("/proc/" + pid + "/ns/pid")
		if err != nil {
			t.Fatal(err)
		}
		spaces[ns] = true
	}
	inside := func() (n int) {
		all, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
		for _, p := range all {
			if ns, err := os.Readlink(p); err == nil && spaces[ns] {
				n++
			}
		}
		return n
	}
	if n := inside(); n < 3+2*2+1 { // holders, two daemons a host, sleep
		t.Errorf("only %d processes in the lab", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 10*time.Second, func() error {
		if n := inside(); n != 0 {
			return fmt.Errorf("%d processes of a killed test are left", n)
		}
		for _, pid := range holders {
			p, _ := strconv.Atoi(pid)
			if syscall.Kill(p, 0) == nil {
				return fmt.Errorf("holder %d is left", p)
			}
		}
		if _, err := os.Stat(dir); err == nil {
			return fmt.Errorf("%s is left", dir)
		}
		return nil
	})
	_ = cmd.Wait()
}
