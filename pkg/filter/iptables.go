package filter

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

// Rules in iptables' chains are made by iptables itself, so that whoever owns
// the chain can list, save and delete them. The old iptables (ip_tables of the
// kernel, iptables-legacy) is also read by it; iptables-nft's chains are
// nf_tables', and read as those.

var (
	errNoProgram    = errors.New("no such program: install iptables")
	errIncompatible = errors.New("iptables cannot read the table: it was made by nft")
)

// legacyGates reads FORWARD of the old iptables, where the kernel has its
// table filter in use. Otherwise it starts no process.
func legacyGates(ctx context.Context) ([]gate, error) {
	var gates []gate
	for _, f := range []struct {
		family byte
		names  string
	}{{unix.NFPROTO_IPV4, "ip_tables_names"}, {unix.NFPROTO_IPV6, "ip6_tables_names"}} {
		// The file is not there on a kernel without the old iptables.
		names, err := os.ReadFile("/proc/thread-self/net/" + f.names)
		if errors.Is(err, os.ErrPermission) {
			return nil, err
		}
		if err != nil || !bytes.Contains(append([]byte("\n"), names...), []byte("\nfilter\n")) {
			continue
		}
		g, err := legacyGate(ctx, f.family)
		if err != nil {
			return nil, err
		}
		gates = append(gates, g)
	}
	return gates, nil
}

func legacyGate(ctx context.Context, family byte) (gate, error) {
	g := gate{family: family, table: "filter", iptables: "legacy"}
	out, err := runIPTables(ctx, g, "-S")
	g.chain, g.drops = parseSaved("FORWARD", out)
	g.user, _ = parseSaved(dockerUser, out)
	return g, err
}

// parseSaved reads one chain, which need not be there, of what iptables -S prints.
func parseSaved(name, out string) (c chainRules, drops bool) {
	c.name = name
	for line := range strings.Lines(out) {
		args := words(line)
		if len(args) < 2 || args[1] != name {
			continue
		}
		switch args[0] {
		case "-P":
			drops = len(args) > 2 && args[2] == "DROP"
		case "-A":
			c.rules = append(c.rules, parseArgs(args[2:]))
		}
	}
	return c, drops
}

// parseArgs reads a rule. A link obr+, all names that begin so, is no link of ours.
func parseArgs(args []string) accept {
	a := accept{args: args}
	for i := 0; i < len(args); i += 2 {
		value := ""
		if i+1 < len(args) {
			value = args[i+1]
		}
		switch {
		case args[i] == "-i":
			a.in = value
		case args[i] == "-o":
			a.out = value
		case args[i] == "--comment":
			a.comment = value
		case args[i] == "-j":
			a.verdict = value
		case args[i] == "-m" && value == "comment":
		default:
			// What follows may not come in pairs; the comment tells whose it is.
			a.more = true
			i--
		}
	}
	return a
}

// words splits a line as a shell would; iptables quotes with double quotes and
// backslashes alone.
func words(line string) []string {
	var list []string
	var w strings.Builder
	var quoted, in bool
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line):
			i++
			w.WriteByte(line[i])
			in = true
		case c == '"':
			quoted, in = !quoted, true
		case !quoted && (c == ' ' || c == '\n'):
			if in {
				list = append(list, w.String())
			}
			w.Reset()
			in = false
		default:
			w.WriteByte(c)
			in = true
		}
	}
	if in {
		list = append(list, w.String())
	}
	return list
}

// insertIPTables makes a rule the chain's number at; the first is 1.
func insertIPTables(ctx context.Context, g gate, chain string, at int, a accept) error {
	flag, dev := "-i", a.in
	if a.out != "" {
		flag, dev = "-o", a.out
	}
	_, err := runIPTables(ctx, g, "-I", chain, strconv.Itoa(at), flag, dev, "-m", "comment", "--comment", a.comment, "-j", a.verdict)
	return err
}

func deleteIPTables(ctx context.Context, g gate, chain string, a accept) error {
	_, err := runIPTables(ctx, g, append([]string{"-D", chain}, a.args...)...)
	return err
}

// runIPTables runs the iptables that a gate belongs to. The error may wrap
// errNoProgram or errIncompatible.
func runIPTables(ctx context.Context, g gate, args ...string) (string, error) {
	program, err := findIPTables(ctx, g.family, g.iptables)
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
	switch {
	case err != nil && strings.Contains(stderr.String(), "incompatible"):
		return "", fmt.Errorf("%w: %s", errIncompatible, bytes.TrimSpace(stderr.Bytes()))
	case err != nil:
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// findIPTables finds iptables of a variant, "nft" or "legacy". Where there is
// only one, it goes without the suffix, and tells the variant with its version;
// before 1.8 there was no other than legacy.
func findIPTables(ctx context.Context, family byte, variant string) (string, error) {
	name := "iptables"
	if family == unix.NFPROTO_IPV6 {
		name = "ip6tables"
	}
	if p := lookPath(name + "-" + variant); p != "" {
		return p, nil
	}
	if p := lookPath(name); p != "" {
		out, err := exec.CommandContext(ctx, p, "--version").Output()
		if err == nil && strings.Contains(string(out), "nf_tables") == (variant == "nft") {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s-%s: %w", name, variant, errNoProgram)
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
