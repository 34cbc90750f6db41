package kernel

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// ProcSys is the directory of the host's sysctls. A program in a container, whose
// /proc/sys is read-only or not the host's, sets it before it calls anything else.
var ProcSys = "/proc/sys"

// sysctlPath is where procfs has a key with slashes. What is below net is that
// of the calling thread's network namespace.
func sysctlPath(key string) string { return ProcSys + "/" + key }

func observeSysctls(want, have state.Set) error {
	var errs []error
	for _, o := range want {
		s, ok := o.(state.Sysctl)
		if !ok {
			continue
		}
		value, err := readSysctl(s.Key)
		if errors.Is(err, fs.ErrNotExist) {
			if metWithoutIPv6(s) {
				have.Put(s)
			}
			continue // a link's that is not there yet
		}
		if err != nil {
			errs = append(errs, wrap(s.Noun(), err))
			continue
		}
		have.Put(state.Sysctl{Key: s.Key, Value: value})
	}
	return errors.Join(errs...)
}

// readSysctl returns a sysctl's value, of at most 512 bytes, without the end of
// the line. os.ReadFile makes twice as many system calls, and ADD and CHECK read
// some 25 sysctls.
func readSysctl(key string) (string, error) {
	path := sysctlPath(key)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 512)
	n, err := unix.Read(fd, b)
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return strings.TrimSpace(string(b[:n])), nil
}

// writeSysctl writes without creating: procfs says EACCES to that, which would
// hide that the key does not exist.
func writeSysctl(key, value string) error {
	f, err := os.OpenFile(sysctlPath(key), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
