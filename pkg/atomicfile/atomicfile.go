// Package atomicfile replaces files in one step: a reader gets the old content or
// the new one. A process that has the old file open, or runs it, keeps that.
//
// Locks and directories are out of scope.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// prefix begins the name of a file that is being written. Runtimes read only files
// whose names end in conf, conflist or json, and containerd does not notice a file
// that comes from another directory.
func prefix(path string) string { return "." + filepath.Base(path) + ".new-" }

// Write replaces a file, or makes it. The file gets the mode whatever the umask. Of
// several calls at once, the last one's content stays.
func Write(path string, content []byte, mode os.FileMode) error {
	return write(path, content, mode, false, os.Rename)
}

// WriteDurable is Write; the file is on disk when it returns.
func WriteDurable(path string, content []byte, mode os.FileMode) error {
	return writeDurable(path, content, mode, os.Rename)
}

// CreateDurable is WriteDurable for a file that does not exist. Otherwise the error
// wraps fs.ErrExist.
func CreateDurable(path string, content []byte, mode os.FileMode) error {
	return writeDurable(path, content, mode, os.Link)
}

func writeDurable(path string, content []byte, mode os.FileMode, put func(from, to string) error) error {
	if err := write(path, content, mode, true, put); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// write writes a file beside path, which put then gives its name.
func write(path string, content []byte, mode os.FileMode, sync bool, put func(from, to string) error) error {
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
	return put(f.Name(), path)
}

// RemoveLeftovers removes the files of calls that were killed while they wrote path.
// No other process may write the file meanwhile.
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
