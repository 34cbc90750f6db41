package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"ovs-gre-cni/pkg/chain"
	"ovs-gre-cni/pkg/host"
)

// Uninstall removes the conflist, if it is ours, then the host state of its
// network, whether containers are attached or not, then the nodes file. The
// plugins stay, so that what was attached can be detached. What is gone already
// is no error.
func Uninstall(ctx context.Context, conflist, store string, log *slog.Logger) error {
	unlock, err := Alone(store)
	if err != nil {
		return err
	}
	defer unlock()
	raw, err := os.ReadFile(conflist)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		log.Info("no conflist", "file", conflist)
	case err != nil:
		return err
	case foreign(conflist, raw):
		return fmt.Errorf("%s: %w: it does not name ovs-gre", conflist, host.ErrForeign)
	default:
		// First of all, so that no container comes while the rest goes.
		if err := os.Remove(conflist); err != nil {
			return err
		}
		log.Info("conflist removed", "file", conflist)
	}
	files, err := networks(conflist, raw, store)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := chain.Down(ctx, f, true, func(change string) { log.Info("change", "network", f.Name(), "change", cut(change)) }); err != nil {
			return fmt.Errorf("network %s: %w", f.Name(), err)
		}
	}
	if err := os.Remove(store); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = os.Remove(temporary(conflist))
	_ = os.Remove(lockFile(store))
	_ = os.Remove(filepath.Dir(store)) // where it is empty, and no mount
	return nil
}

// networks are the chain of the conflist, or, where that is gone or says
// nonsense, those whose host state was made with the store.
func networks(conflist string, raw []byte, store string) ([]chain.File, error) {
	if f := chain.Parse(conflist, raw); f.Err == nil {
		return []chain.File{f}, nil
	}
	entries, err := os.ReadDir(host.RunDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var files []chain.File
	for _, e := range entries {
		if f, ok := chain.Handed(e.Name()); ok && f.OVS != nil && f.OVS.NodesFile == store {
			files = append(files, f)
		}
	}
	return files, err
}

// RemovePlugins removes our plugins from a directory, and no others: whoever
// else has brought them may need them.
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
