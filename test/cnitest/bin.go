// Package cnitest is what the suites share: the built binaries, conflists for
// a lab's hosts, and calls of the plugins through cnitool and without it.
package cnitest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// BinDir returns a directory with our plugins, the reference plugins of
// containernetworking and cnitool, built on the first call of a test process.
// OVSGRE_BIN names one that is built already.
func BinDir(t testing.TB) string {
	t.Helper()
	dir, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Build is BinDir for programs that are no tests.
var Build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("OVSGRE_BIN"); dir != "" {
		return dir, nil
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".cache", "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	list := exec.Command("go", "list", "tool")
	list.Dir = root
	tools, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("go list tool: %w", err)
	}
	args := []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", dir + "/", "./plugins/main/ovs-gre", "./plugins/meta/route-sync"}
	for tool := range strings.FieldsSeq(string(tools)) {
		if strings.HasPrefix(tool, "github.com/containernetworking/") {
			args = append(args, tool)
		}
	}
	if cmds, _ := filepath.Glob(filepath.Join(root, "cmd", "*", "main.go")); len(cmds) > 0 {
		args = append(args, "./cmd/...")
	}
	build := exec.CommandContext(context.Background(), "go", args...)
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

// Root is the top of the checkout.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no go.mod above the working directory")
}
