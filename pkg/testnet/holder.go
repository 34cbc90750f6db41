package testnet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
)

// A holder is the process that keeps the namespaces of a host: the init of its pid
// namespace, which reads from a pipe that this process never writes to. When this
// process ends, the kernel closes the pipe and the holder exits; when the holder exits,
// the kernel kills all processes of its pid namespace.
type holder struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has been waited for
}

// holderCommand is what a holder does. While it ignores SIGCHLD, which a shell cannot,
// it need not reap: the kernel drops the orphans of daemons by itself, so that
// a daemon which has ended is really gone.
const holderCommand = "exec env --ignore-signal=CHLD cat"

// hold starts a holder. The script runs first in the new namespaces, with args as its
// $1 and so on; then last runs, which must exit at the end of its standard input.
func hold(ctx context.Context, script, last string, args ...string) (*holder, error) {
	script = "set -e\nmount --make-rslave /\nmount -t proc proc /proc\n" + script + "\necho ready\n" + last + "\n"
	cmd := exec.Command("sh", append([]string{"-c", script, "testnet-holder"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("new namespaces: %w", err)
	}
	h := &holder{cmd: cmd, gone: make(chan struct{})}

	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	ready := line == "ready\n"
	if !ready {
		_, _ = io.Copy(io.Discard, stdout) // until the end of the script
	}
	// The goroutine also keeps the pipe from being collected, and so closed.
	go func() {
		_ = cmd.Wait()
		close(h.gone)
	}()
	if !ready || !stop() {
		h.halt()
		return nil, errors.Join(fmt.Errorf("new namespaces: %s", strings.TrimSpace(stderr.String())), ctx.Err())
	}
	return h, nil
}

// pid returns the holder's process id in the pid namespace of this process.
func (h *holder) pid() int { return h.cmd.Process.Pid }

// halt kills all processes in the namespaces, like a power failure.
func (h *holder) halt() {
	_ = h.cmd.Process.Kill()
	<-h.gone
}
