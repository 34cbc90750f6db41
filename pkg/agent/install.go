package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// plugins are the plugins of this project. Others may come from other packages, too.
var plugins = []string{"ovs-gre", "route-sync"}

// Install copies plugins from one directory to another and returns the names of those
// that it copied: this project's plugins if they differ, others only if they are absent,
// because the host may have newer ones. Each file is replaced in one step; a running
// plugin keeps the old file.
func Install(from, to string) ([]string, error) {
	entries, err := os.ReadDir(from)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(to)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// Two calls at once would write to the same temporary files.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", to, err)
	}
	var installed []string
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		wrote, err := install(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		if err != nil {
			return installed, err
		}
		if wrote {
			installed = append(installed, e.Name())
		}
	}
	return installed, nil
}

const executable = 0o755

// install copies one file and reports whether it had to.
func install(from, to string) (bool, error) {
	want, err := os.ReadFile(from)
	if err != nil {
		return false, err
	}
	st, err := os.Lstat(to)
	if err == nil && !slices.Contains(plugins, filepath.Base(to)) {
		return false, nil
	}
	if err == nil && st.Mode() == executable && st.Size() == int64(len(want)) {
		if have, err := os.ReadFile(to); err == nil && bytes.Equal(have, want) {
			return false, nil
		}
	}
	return true, replaceFile(to, want, executable)
}
