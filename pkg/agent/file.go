package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// A NodesFile is the Source without Kubernetes: the path of a nodes file.
type NodesFile string

// List implements Source.
func (f NodesFile) List() (List, error) {
	list, err := nodes.Load(string(f))
	slices.SortFunc(list, func(a, b config.Node) int { return strings.Compare(a.Name, b.Name) })
	return List{Nodes: list}, err
}

// Run implements Source. It watches the directory, because a file may be replaced by
// renaming another, or be a link to a file that changes.
func (f NodesFile) Run(ctx context.Context, changed func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	file := os.NewFile(uintptr(fd), "inotify")
	defer file.Close()
	defer context.AfterFunc(ctx, func() { file.Close() })()
	dir := filepath.Dir(string(f))
	const mask = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	changed() // the file may have changed before the watch began
	buf := make([]byte, 16<<10)
	for {
		n, err := file.Read(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("watch %s: %w", dir, err)
		}
		changed()
		if endsWatch(buf[:n]) {
			return fmt.Errorf("watch %s: %w", dir, errGone)
		}
	}
}

var errGone = errors.New("the directory went away")

// endsWatch reports whether one of inotify's events (inotify(7)) ends the watch.
func endsWatch(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask, name := binary.NativeEndian.Uint32(events[4:]), int(binary.NativeEndian.Uint32(events[12:]))
		if mask&(unix.IN_IGNORED|unix.IN_MOVE_SELF) != 0 {
			return true
		}
		events = events[min(unix.SizeofInotifyEvent+name, len(events)):]
	}
	return false
}
