package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ovs-gre-cni/pkg/spec"
)

// Load reads a nodes file. The error wraps ErrNotReady where there is none,
// and spec.ErrInvalid where it says nonsense.
func Load(path string) ([]spec.Node, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("nodesFile %s: %w: no such file yet", path, ErrNotReady)
	}
	if err != nil {
		return nil, fmt.Errorf("nodesFile: %w", err)
	}
	nodes, err := spec.DecodeNodes("nodes", raw)
	if err != nil {
		return nil, fmt.Errorf("nodesFile %s: %w", path, err)
	}
	return nodes, nil
}

// Store replaces a nodes file in one step, so that a reader sees the old list
// or the new one, also after a power cut.
func Store(path string, nodes []spec.Node) error {
	if nodes == nil {
		nodes = []spec.Node{}
	}
	raw, err := json.MarshalIndent(nodes, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".")
	if err != nil {
		return fmt.Errorf("store nodes: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(raw, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("store nodes: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
