package ovs

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/state"
)

// maxSecret is the most bytes of a secret in a file, a choice.
const maxSecret = 512

// secrets are the values of options that come from files, by path.
type secrets map[string]string

// read reads the files that objects name and that are not read yet.
func (s secrets) read(o state.Object) error {
	t, ok := o.(state.Tunnel)
	if !ok || t.Secrets == "" {
		return nil
	}
	for _, o := range state.OptionLines(t.Secrets) {
		if s[o.Value] != "" {
			continue
		}
		value, err := readSecret(o.Value)
		if err != nil {
			return fmt.Errorf("tunnel.options.%s: %w", o.Name, err)
		}
		s[o.Value] = value
	}
	return nil
}

// readSecret reads a secret, which is the only line of a file, with or without a line
// break. As ssh with private keys, it refuses a file that belongs to another user than
// this process's, root, or that others may read or write. The error wraps
// config.ErrInvalid and contains nothing of the file.
func readSecret(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait for its other end
	if err != nil {
		return "", fmt.Errorf("%w: %w", config.ErrInvalid, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("%w: %w", config.ErrInvalid, err)
	}
	owner, _ := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.Mode().IsRegular():
		return "", fmt.Errorf("%w: %s is no regular file", config.ErrInvalid, path)
	case owner == nil || int(owner.Uid) != os.Geteuid():
		return "", fmt.Errorf("%w: %s is not root's: want a file of root's that root alone can read and write (chown root)",
			config.ErrInvalid, path)
	case st.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("%w: %s has mode %#o: want a file of root's that root alone can read and write (chmod 600)",
			config.ErrInvalid, path, st.Mode().Perm())
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret+2))
	if err != nil {
		return "", fmt.Errorf("%w: %w", config.ErrInvalid, err)
	}
	secret := strings.TrimSuffix(string(raw), "\n")
	// A quote would end the secret in the files that OVS's IPsec daemon writes, and
	// ovs-vsctl reads a backslash as the beginning of an escape.
	bad := func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }
	if secret == "" || len(secret) > maxSecret || strings.ContainsFunc(secret, bad) {
		return "", fmt.Errorf(`%w: %s: want one line of 1 to %d printable ASCII characters without " and \`, config.ErrInvalid, path, maxSecret)
	}
	return secret, nil
}

// ourOptions are the options that columns makes of a tunnel's other attributes.
var ourOptions = []string{"remote_ip", "local_ip", "key", "csum", "dst_port"}
