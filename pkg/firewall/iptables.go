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

// The old iptables (ip_tables of the kernel, iptables-legacy) is read and
// written by its own program. iptables-nft's chains are nf_tables', and are
// read and written as those, in the form that iptables gives its rules, so
// that it can list, save and delete them.

var errNoProgram = errors.New("no such program: install iptables")

// legacyGates reads the tables of the old iptables that have the chain, where
// the kernel has them in use. Otherwise it starts no process.
func (s *ruleset) legacyGates(ctx context.Context, table, chain string) ([]baseChain, error) {
	var gates []baseChain
	for _, f := range []struct {
		family byte
		names  string
	}{{unix.NFPROTO_IPV4, "ip_tables_names"}, {unix.NFPROTO_IPV6, "ip6_tables_names"}} {
		// The file is not there on a kernel without the old iptables.
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
		gates = append(gates, s.load(f.family, table, chain, out))
	}
	return gates, nil
}

// insertSaved makes accepts in a chain of the old iptables, the first of them
// its rule number at+1. Those that differ only by source go in by one call.
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

// runIPTables runs the old iptables of a family. The error may wrap errNoProgram.
func runIPTables(ctx context.Context, family byte, args ...string) (string, error) {
	program, err := findIPTables(ctx, family)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithDeadline(ctx, deadline(ctx))
	defer cancel()
	// It may wait for others' lock, and must not outlive us: a rule that comes
	// after the DEL which follows our death would stay for ever. The signal
	// comes with the end of the thread that starts it.
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

// findIPTables finds the old iptables. Where there is no other it goes without
// the suffix, and tells what it is with its version; before 1.8 there was no other.
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

// sbin is where a runtime's PATH may not lead; lookIn is for tests.
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
