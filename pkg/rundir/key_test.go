package rundir_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/rundir"
)

// TestKey: it is made once, is nobody else's to read, and is printed by nothing.
func TestKey(t *testing.T) {
	const network = "test-of-keys"
	file := config.KeyFile(network)
	t.Cleanup(func() {
		if err := rundir.RemoveKeys(network); err != nil {
			t.Error(err)
		}
		if _, err := rundir.PrivateKey(network); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after RemoveKeys: %v", err)
		}
	})
	if _, err := rundir.PrivateKey(network); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before: %v", err)
	}
	sync := func(listed string) rundir.Key {
		t.Helper()
		if err := rundir.SyncKey(network, listed); err != nil {
			t.Fatal(err)
		}
		k, err := rundir.PrivateKey(network)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := sync("")
	if again := sync("another"); again != first {
		t.Error("a second call makes another key")
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", st.Mode(), err)
	}
	raw, _ := os.ReadFile(file)
	for _, text := range []string{fmt.Sprint(first), fmt.Sprintf("%v %+v %#v %s", first, first, first, first)} {
		if strings.Contains(text, strings.TrimSpace(string(raw))) || strings.Contains(text, fmt.Sprint(first[0], first[1])) {
			t.Errorf("prints the key: %s", text)
		}
	}

	next := rundir.NewKey()
	if err := rundir.StoreNextKey(network, next, "public"); err != nil {
		t.Fatal(err)
	}
	if sync("other") != first {
		t.Error("the next key is taken although the nodes do not name it")
	}
	if sync("public") != next {
		t.Error("the next key is not taken although the nodes name it")
	}
	if _, _, err := rundir.NextKey(network); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the next key is still there: %v", err)
	}

	if os.Geteuid() == 0 {
		if err := os.Chown(file, 1, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := rundir.PrivateKey(network); !errors.Is(err, fault.ErrForeign) {
			t.Errorf("a key of another user's: %v", err)
		}
		if err := os.Chown(file, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := rundir.PrivateKey(network); !errors.Is(err, fault.ErrForeign) {
		t.Errorf("a key that others can read: %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rundir.SyncKey(network, ""); !errors.Is(err, config.ErrInvalid) || strings.Contains(err.Error(), "nonsense") {
		t.Errorf("nonsense: %v", err)
	}
}
