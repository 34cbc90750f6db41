package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"ovs-gre-cni/pkg/atomicfile"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/rundir"
)

// Uninstall removes the conflist, if it is ours, then the host state of its
// network, whether containers are attached or not, its keys, then the nodes file. The
// plugins stay, so that what was attached can be detached. What is gone already
// is no error.
func Uninstall(ctx context.Context, file, store string, log *slog.Logger) error {
	unlock, err := LockStore(store)
	if err != nil {
		return err
	}
	defer unlock()
	raw, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		log.Info("no conflist", "file", file)
	case err != nil:
		return err
	case foreign(file, raw):
		return fmt.Errorf("%s: %w: it does not name ovs-gre", file, fault.ErrForeign)
	default:
		// First of all, so that no container is attached meanwhile.
		if err := os.Remove(file); err != nil {
			return err
		}
		log.Info("conflist removed", "file", file)
	}
	files, err := networks(file, raw, store)
	if err != nil {
		return err
	}
	for _, f := range files {
		report := func(change string) { log.Info("change", "network", f.Name(), "change", truncate(change)) }
		if err := conflist.Down(ctx, f, true, report); err != nil {
			return fmt.Errorf("network %s: %w", f.Name(), err)
		}
		if err := rundir.RemoveKeys(f.Name()); err != nil {
			return err
		}
	}
	if err := os.Remove(store); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = errors.Join(atomicfile.RemoveLeftovers(file), atomicfile.RemoveLeftovers(store))
	_ = os.Remove(lockFile(store))
	_ = os.Remove(filepath.Dir(store)) // succeeds where it is empty and no mount
	return nil
}

// networks returns the conflist or, where it is absent or invalid, the saved conflists of
// the networks whose host state was made with this nodes file.
func networks(file string, raw []byte, store string) ([]conflist.File, error) {
	if f := conflist.Parse(file, raw); f.Err == nil {
		return []conflist.File{f}, nil
	}
	entries, err := os.ReadDir(rundir.RunDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var files []conflist.File
	for _, e := range entries {
		if f, ok := conflist.Saved(e.Name()); ok && f.OVS != nil && f.OVS.NodesFile == store {
			files = append(files, f)
		}
	}
	return files, err
}

// RemovePlugins removes this project's plugins from a directory. Others stay: they may come
// from other packages, too.
func RemovePlugins(dir string, log *slog.Logger) error {
	var errs []error
	for _, name := range plugins {
		err := os.Remove(filepath.Join(dir, name))
		if err == nil {
			log.Info("removed", "plugin", name, "directory", dir)
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
