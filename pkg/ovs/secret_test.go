package ovs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ovs-gre-cni/pkg/config"
)

// TestReadSecret: what others may read is no secret, and no error has what is in a file.
func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "psk")
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"xyzzy", 0o600, "xyzzy"},
		{"two words: é\n", 0o600, ""},
		{"two words\n", 0o400, "two words"},
		{" xyzzy \n", 0o600, " xyzzy "},
		{strings.Repeat("x", maxSecret) + "\n", 0o600, strings.Repeat("x", maxSecret)},
		{strings.Repeat("x", maxSecret+1), 0o600, ""},
		{"", 0o600, ""},
		{"\n", 0o600, ""},
		{"xyzzy\n\n", 0o600, ""},
		{"xyzzy\r\n", 0o600, ""},
		{`xy"zzy`, 0o600, ""},
		{`xy\zzy`, 0o600, ""},
		{"xyzzy", 0o640, ""},
		{"xyzzy", 0o604, ""},
		{"xyzzy", 0o602, ""},
	} {
		_ = os.Remove(path)
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		got, err := readSecret(path)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, config.ErrInvalid) {
			t.Errorf("%.20q, mode %o: %.20q, %v", tt.text, tt.mode, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "zzy") || !strings.Contains(err.Error(), path)) {
			t.Errorf("%.20q, mode %o: %v", tt.text, tt.mode, err)
		}
	}
	link := path + ".link" // as Kubernetes mounts secrets
	if err := errors.Join(os.Remove(path), os.Symlink(path, link), os.WriteFile(path, []byte("xyzzy"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got, err := readSecret(link); got != "xyzzy" || err != nil {
		t.Errorf("by a symbolic link: %q, %v", got, err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 1, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := readSecret(path); err == nil {
			t.Error("a file of another user's passes")
		}
	}
	fifo := path + ".fifo"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{fifo, t.TempDir(), path + ".not", "/dev/zero"} {
		if _, err := readSecret(other); !errors.Is(err, config.ErrInvalid) {
			t.Errorf("%s: %v", other, err)
		}
	}
}
