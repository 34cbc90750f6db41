// Package atomicfile replaces files in one step: who opens one gets the old
// content or the new. What has the old one open, or runs it, keeps it.
//
// Locks and directories are out of scope.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// prefix is what the names of files begin with that are not in their place yet.
// Runtimes look in their directories at names that end in conf, conflist or
// json alone, and containerd does not see a file that comes from another.
func prefix(path string) string { return "." + filepath.Base(path) + ".new-" }

// Write replaces a file, which gets the mode whatever the umask. Several may do
// so at once: the last one's stays.
func Write(path string, content []byte, mode os.FileMode) error {
	return write(path, content, mode, false)
}

// WriteDurable is Write that holds also for a machine that loses its power.
func WriteDurable(path string, content []byte, mode os.FileMode) error {
	if err := write(path, content, mode, true); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func write(path string, content []byte, mode os.FileMode, sync bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), prefix(path))
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // there is none after the rename
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode))
	if sync {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// RemoveLeftovers removes what calls left behind that were killed while they
// wrote the file. It is for who knows that nobody else writes it.
func RemoveLeftovers(path string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix(path)) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
