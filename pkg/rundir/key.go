package rundir

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"ovs-gre-cni/pkg/atomicfile"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
)

// A Key is a private key of WireGuard's. Nothing prints it.
type Key [32]byte

// String keeps the key out of messages and logs.
func (Key) String() string { return "(private key)" }

// GoString is String.
func (k Key) GoString() string { return k.String() }

// NewKey makes a private key: random bytes, clamped as Curve25519 wants them
// (RFC 7748, section 5).
func NewKey() Key {
	var k Key
	_, _ = rand.Read(k[:]) // never fails
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k
}

// PrivateKey reads this host's private key for a network. The error wraps
// fs.ErrNotExist where there is none.
func PrivateKey(network string) (Key, error) {
	k, _, err := readKey(config.KeyFile(network))
	return k, err
}

// NextKey reads this host's next private key for a network, and its public key in
// base64. The error wraps fs.ErrNotExist where there is none.
func NextKey(network string) (k Key, public string, err error) { return readKey(nextKeyFile(network)) }

// nextKeyFile is the file of the key that replaces the present one when the nodes name
// it. Its second line is the public key.
func nextKeyFile(network string) string { return config.KeyFile(network) + ".next" }

// SyncKey makes this host's private key for a network, if there is none. If listed,
// this host's public key in the nodes, is that of the next key, the next key replaces
// the present one. "" is none in the nodes. A caller with another listed holds the
// network's lock.
func SyncKey(network, listed string) error {
	next, public, err := NextKey(network)
	if err == nil && listed != "" && public == listed {
		if err := writeKey(atomicfile.WriteDurable, config.KeyFile(network), next, ""); err != nil {
			return err
		}
		return os.Remove(nextKeyFile(network))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := PrivateKey(network); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return firstKey(config.KeyFile(network), NewKey(), "")
}

// StoreNextKey writes the file of the next key with its public key, unless there is
// one already.
func StoreNextKey(network string, k Key, public string) error {
	return firstKey(nextKeyFile(network), k, public)
}

// RemoveKeys deletes this host's private keys for a network, if there are any.
func RemoveKeys(network string) error {
	var errs []error
	for _, path := range []string{config.KeyFile(network), nextKeyFile(network)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// firstKey writes a key's file, unless another call has written it first.
func firstKey(path string, k Key, public string) error {
	err := writeKey(atomicfile.CreateDurable, path, k, public)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// readKey reads a key's file. It refuses one that others may read or write; the error
// then wraps fault.ErrForeign.
func readKey(path string) (k Key, public string, err error) {
	st, err := os.Lstat(path)
	if err != nil {
		return k, "", fmt.Errorf("private key: %w", err)
	}
	owner, _ := st.Sys().(*syscall.Stat_t)
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 || owner == nil || int(owner.Uid) != os.Geteuid() {
		return k, "", fmt.Errorf("private key %s: %w: want a file that root alone can read and write (mode 0600)", path, fault.ErrForeign)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return k, "", fmt.Errorf("private key: %w", err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(first))
	if err != nil || len(raw) != len(k) {
		return k, "", fmt.Errorf("private key %s: %w: want 32 bytes in base64, as wg genkey prints them", path, config.ErrInvalid)
	}
	return Key(raw), strings.TrimSpace(rest), nil
}

// writeKey writes a key's file by a function of atomicfile.
func writeKey(write func(string, []byte, os.FileMode) error, path string, k Key, public string) error {
	text := base64.StdEncoding.EncodeToString(k[:]) + "\n"
	if public != "" {
		text += public + "\n"
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = write(path, []byte(text), 0o600)
	}
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	return nil
}
