package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	for name, write := range map[string]func(string, []byte, os.FileMode) error{"Write": Write, "WriteDurable": WriteDurable} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a.conflist")
			for _, content := range []string{"long enough to show a rest", "short"} {
				if err := write(path, []byte(content), 0o755); err != nil {
					t.Fatal(err)
				}
				if have, err := os.ReadFile(path); err != nil || string(have) != content {
					t.Errorf("%q, %v; want %q", have, err, content)
				}
			}
			if st, err := os.Stat(path); err != nil || st.Mode() != 0o755 {
				t.Errorf("%v, %v", st, err)
			}
			if err := write(dir, nil, 0o600); err == nil { // no file takes a directory's place
				t.Error("no error")
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
			if err := write(filepath.Join(dir, "none", "a"), nil, 0o600); !os.IsNotExist(err) {
				t.Errorf("no directory: %v", err)
			}
		})
	}
}

func TestRemoveLeftovers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.conflist")
	foreign := []string{"a.conflist", ".a.conflist.swp", ".b.conflist.new-1"}
	for _, name := range append(foreign, ".a.conflist.new-1", ".a.conflist.new-2") {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveLeftovers(path); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(foreign) {
		t.Errorf("%v, %v; want %v", entries, err, foreign)
	}
	if err := RemoveLeftovers(filepath.Join(dir, "none", "a")); err != nil {
		t.Error(err)
	}
}
