package testnet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Runner is a place where programs run: a *Host or a *Netns.
type Runner interface {
	// Command is exec.CommandContext inside. The program is looked up, and
	// paths are read, as the host sees them; its working directory is /,
	// whatever Dir says. All other fields are the caller's to set. The program
	// is a grandchild of this process: killing the command kills it, other
	// signals are sent to it with Signal.
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
	// Output runs a program and returns its standard output. The error has
	// its standard error.
	Output(ctx context.Context, name string, args ...string) (string, error)
	// Run is Output for a program whose failure ends the test.
	Run(t testing.TB, name string, args ...string) string
	// Shell runs a script by sh -e and returns its standard output. Its
	// failure ends the test.
	Shell(t testing.TB, script string) string
}

// enter is a command in the namespaces of a process; netns is the path of
// another network namespace in place of the process's own, or "".
func enter(ctx context.Context, pid int, netns, name string, args []string) *exec.Cmd {
	net := "--net"
	if netns != "" {
		net += "=/proc/" + strconv.Itoa(pid) + "/root" + netns
	}
	// nsenter stays outside as the parent of the program, for only a child can
	// be in another pid namespace. The program must not outlive it.
	argv := append([]string{"--target", strconv.Itoa(pid), "--mount", "--pid", net, "--",
		"setpriv", "--pdeathsig", "KILL", "--", name}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", argv...)
	// A daemon that was left behind may keep the output open for ever.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Signal sends a signal to the program of a started Command, when there is
// one: it waits for the program to be started. The result is an
// os.ErrProcessDone when it has ended.
func Signal(cmd *exec.Cmd, sig syscall.Signal) error {
	self := strconv.Itoa(cmd.Process.Pid)
	for {
		b, err := os.ReadFile("/proc/" + self + "/task/" + self + "/children")
		if err != nil {
			return os.ErrProcessDone
		}
		if child, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			if exe, err := os.Readlink("/proc/" + strconv.Itoa(child) + "/exe"); err == nil &&
				!strings.HasSuffix(exe, "/nsenter") && !strings.HasSuffix(exe, "/setpriv") {
				return syscall.Kill(child, sig)
			}
		}
		// A zombie has no children and never will have.
		if st, err := os.ReadFile("/proc/" + self + "/stat"); err != nil || state(st) == 'Z' {
			return os.ErrProcessDone
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // nothing announces that a process has entered its namespace
	}
}

// state is the state of a process, from its /proc/PID/stat.
func state(stat []byte) byte {
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 && i+2 < len(stat) {
		return stat[i+2]
	}
	return 0
}

func output(cmd *exec.Cmd, name string, args []string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(stderr.String())
		if text == "" {
			text = strings.TrimSpace(stdout.String())
		}
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args...), " "), err, text)
	}
	return stdout.String(), nil
}

func run(t testing.TB, r Runner, where, name string, args []string) string {
	t.Helper()
	// Not the test's context: that one has ended when the clean-ups run.
	out, err := r.Output(context.Background(), name, args...)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	return out
}

// PingOptions say how to ping. The zero value is one packet of ping's usual
// size, and a second to answer it.
type PingOptions struct {
	Count        int           // packets to send; 0 means 1
	Size         int           // bytes of payload; 0 means ping's 56
	DontFragment bool          // neither here nor on the way
	Wait         time.Duration // for each answer; 0 means a second
}

// Ping sends echo requests to an address. It fails unless each one is answered
// exactly once; the error has ping's output.
func Ping(ctx context.Context, from Runner, to netip.Addr, o PingOptions) error {
	count := max(o.Count, 1)
	wait := o.Wait
	if wait == 0 {
		wait = time.Second
	}
	args := []string{"-n", "-i", "0.2", "-c", strconv.Itoa(count), "-W", strconv.FormatFloat(wait.Seconds(), 'f', -1, 64)}
	if o.Size != 0 {
		args = append(args, "-s", strconv.Itoa(o.Size))
	}
	if o.DontFragment {
		args = append(args, "-M", "do")
	}
	args = append(args, to.String())
	out, err := from.Output(ctx, "ping", args...)
	if err == nil && (!strings.Contains(out, " "+strconv.Itoa(count)+" received, 0% packet loss") || strings.Contains(out, "DUP!")) {
		err = errors.New("not every packet was answered once")
	}
	if err != nil {
		return fmt.Errorf("ping %v: %w\n%s", to, err, strings.TrimSpace(out))
	}
	return nil
}

// StartReady starts a program and returns its first line of output, without the
// newline. The test ends where the program prints none.
func StartReady(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// Eventually calls f until it returns nil. When it still fails after that
// time, the test ends with its last error.
func Eventually(t testing.TB, within time.Duration, f func() error) {
	t.Helper()
	if err := poll(context.Background(), within, f); err != nil {
		t.Fatal(err)
	}
}

// waitTimeout bounds every wait of the lab's own.
const waitTimeout = 30 * time.Second

// poll calls f until it returns nil, the time is over or the context ends.
func poll(ctx context.Context, within time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}
