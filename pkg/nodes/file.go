package nodes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/atomicfile"
	"ovs-gre-cni/pkg/config"
)

// Load reads a nodes file. The error wraps ErrNotReady where the file is absent, and
// config.ErrInvalid where its content is invalid.
func Load(path string) ([]config.Node, error) {
	raw, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("nodesFile %s: %w: no such file yet", path, ErrNotReady)
	}
	if err != nil {
		return nil, fmt.Errorf("nodesFile: %w", err)
	}
	nodes, err := config.DecodeNodes("nodes", raw)
	if err != nil {
		return nil, fmt.Errorf("nodesFile %s: %w", path, err)
	}
	return nodes, nil
}

// maxFileSize is the size of the largest nodes file: 100,000 nodes make about 10 MB.
const maxFileSize = 64 << 20

// read reads a regular file of at most maxFileSize. It refuses a pipe, which could
// block, and a device, which could have no end.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFileSize {
		return nil, fmt.Errorf("%s: want a regular file of at most %d MB", path, maxFileSize>>20)
	}
	b := bytes.NewBuffer(make([]byte, 0, st.Size()+bytes.MinRead))
	_, err = b.ReadFrom(io.LimitReader(f, maxFileSize))
	return b.Bytes(), err
}

// Store replaces a nodes file in one step: a reader sees the old list or the new
// one, also after a power failure.
func Store(path string, nodes []config.Node) error {
	if err := atomicfile.WriteDurable(path, config.EncodeNodes(nodes), 0o644); err != nil {
		return fmt.Errorf("store nodes: %w", err)
	}
	return nil
}
