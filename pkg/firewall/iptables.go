package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The chains of iptables-legacy (ip_tables of the kernel) are read and written by that
// program. The chains of iptables-nft are nf_tables'. They are read and written over
// netlink, with rules in the form that iptables gives them, so that iptables can list,
// save and delete them.

var errNoProgram = errors.New("no such program: install iptables")

// legacyBaseChains reads a table of iptables-legacy, of both families, and returns the
// base chains called chain. It starts a process only if the kernel has the table.
func (s *ruleset) legacyBaseChains(ctx context.Context, table, chain string) ([]baseChain, error) {
	var bases []baseChain
	for _, f := range []struct {
		family byte
		names  string
	}{{unix.NFPROTO_IPV4, "ip_tables_names"}, {unix.NFPROTO_IPV6, "ip6_tables_names"}} {
		// A kernel without ip_tables has no such file.
		names, err := os.ReadFile("/proc/thread-self/net/" + f.names)
		if errors.Is(err, os.ErrPermission) {
			return nil, err
		}
		if err != nil || !bytes.Contains(append([]byte("\n"), names...), []byte("\n"+table+"\n")) {
			continue
		}
		out, err := runIPTables(ctx, f.family, "-t", table, "-S")
		if err != nil {
			return nil, err
		}
		bases = append(bases, s.load(f.family, table, chain, out))
	}
	return bases, nil
}

// insertSaved inserts accept rules into a chain of iptables-legacy; the first becomes
// rule number at+1. Rules that differ only by source are made by one call.
func insertSaved(ctx context.Context, c *ruleChain, at int, forms []form) error {
	for len(forms) > 0 {
		f, n := forms[0], 1
		sources := []string{prefixString(f.from)}
		for _, o := range forms[1:] {
			if o.from = f.from; o != f || !f.from.IsValid() {
				break
			}
			sources = append(sources, prefixString(forms[n].from))
			n++
		}
		args := []string{"-I", c.name, strconv.Itoa(at + 1)}
		for _, a := range [][2]string{{"-i", f.in}, {"-o", f.out}, {"-s", strings.Join(sources, ",")}, {"-d", prefixString(f.to)}} {
			if a[1] != "" {
				args = append(args, a[:]...)
			}
		}
		if f.state != "" {
			args = append(args, "-m", "conntrack", "--ctstate", f.state)
		}
		if _, err := runIPTables(ctx, c.family, append(args, "-m", "comment", "--comment", f.comment, "-j", f.verdict)...); err != nil {
			return err
		}
		forms, at = forms[n:], at+n
	}
	return nil
}

func deleteSaved(ctx context.Context, family byte, r *rule) error {
	_, err := runIPTables(ctx, family, append([]string{"-D", r.chain}, r.args...)...)
	return err
}

// runIPTables runs iptables-legacy of a family. The error wraps errNoProgram where it
// is not installed.
func runIPTables(ctx context.Context, family byte, args ...string) (string, error) {
	program, err := findIPTables(ctx, family)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithDeadline(ctx, deadline(ctx))
	defer cancel()
	// It may wait for the lock of others, and must not outlive this process: if this
	// is killed, a rule made after the DEL that follows would stay for ever. The
	// kernel sends the signal when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, program, append([]string{"-w"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// findIPTables finds iptables-legacy. Where only one iptables is installed it has no
// suffix, and its version tells which one it is; before 1.8 there was only legacy.
func findIPTables(ctx context.Context, family byte) (string, error) {
	name := "iptables"
	if family == unix.NFPROTO_IPV6 {
		name = "ip6tables"
	}
	if p := lookPath(name + "-legacy"); p != "" {
		return p, nil
	}
	if p := lookPath(name); p != "" {
		out, err := exec.CommandContext(ctx, p, "--version").Output()
		if err == nil && !strings.Contains(string(out), "nf_tables") {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s-legacy: %w", name, errNoProgram)
}

// sbin are directories that may not be in a runtime's PATH; tests set lookIn.
var (
	sbin   = []string{"/usr/sbin", "/sbin"}
	lookIn = sbin
)

// lookPath finds a program in PATH and in sbin; "" is nowhere.
func lookPath(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range lookIn {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	return ""
}
