// Package conflist reads the conflists of this host that name ovs-gre or route-sync,
// and makes (Up) and removes (Down) the host state of one without a container.
package conflist

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/rundir"
)

// ConfDir is where runtimes look for conflists.
const ConfDir = "/etc/cni/net.d"

// A File is a conflist of this host that names ovs-gre or route-sync.
type File struct {
	// Path is the file's path.
	Path string
	// List is the file's content; nil where it cannot be decoded.
	List *config.List
	// OVS is the configuration of ovs-gre, Routes that of route-sync; nil
	// where the chain has no such plugin.
	OVS    *config.Network
	Routes *config.Routes
	// Err joins all problems of the file; nil where it has none.
	Err error
	// SupersededBy is the path of an earlier file of the same network in the same
	// directory; "" means that there is none. Runtimes use that file and ignore
	// this one. LoadDir sets it.
	SupersededBy string
}

// Superseded returns, for a message, why runtimes ignore the file; "" means that
// they use it.
func (f File) Superseded() string {
	if f.SupersededBy == "" {
		return ""
	}
	return fmt.Sprintf("%s: ignored: %s names network %s too, and comes first", f.Path, f.SupersededBy, f.Name())
}

// Name returns the network's name or, where there is none, the file's base name.
func (f File) Name() string {
	if f.List != nil && f.List.Name != "" {
		return f.List.Name
	}
	return filepath.Base(f.Path)
}

// Base returns the keys that ovs-gre and route-sync share, of ovs-gre if the file
// names it. It is nil where neither has been decoded.
func (f File) Base() *config.Base {
	switch {
	case f.OVS != nil:
		return &f.OVS.Base
	case f.Routes != nil:
		return &f.Routes.Base
	}
	return nil
}

// Bridge returns the OVS bridge of the file's ovs-gre, or "". route-sync uses it where
// it has neither a key bridge nor a previous result.
func (f File) Bridge() string {
	if f.OVS != nil {
		return f.OVS.Bridge
	}
	return ""
}

// Load reads a conflist. Its problems are in File.Err.
func Load(path string) File {
	raw, err := readFile(path)
	if err != nil {
		var of *fs.PathError // it names the file again
		if errors.As(err, &of) {
			err = of.Err
		}
		return File{Path: path, Err: fmt.Errorf("%s: %w", path, err)}
	}
	return Parse(path, raw)
}

// maxFileSize is the size of the largest conflist, in bytes. It is a choice: 100,000 nodes
// make about 10 MB.
const maxFileSize = 64 << 20

// readFile reads a file of at most maxFileSize: a device may have no end.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(raw) > maxFileSize {
		err = fmt.Errorf("want a file of at most %d MB", maxFileSize>>20)
	}
	return raw, err
}

// Parse decodes raw, the content of the conflist at path. Its problems are in
// File.Err.
func Parse(path string, raw []byte) File {
	f := File{Path: path}
	var err error
	if f.List, err = config.ParseList(raw); err != nil {
		f.Err = fmt.Errorf("%s: %w", path, err)
		return f
	}
	var errs []error
	if p := f.List.Find("ovs-gre"); p != nil {
		f.OVS, err = config.Parse(p.Raw)
		errs = append(errs, err)
	}
	if p := f.List.Find("route-sync"); p != nil {
		f.Routes, err = config.ParseRoutes(p.Raw)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		f.Err = fmt.Errorf("%s: %w", path, err)
	} else if f.OVS == nil && f.Routes == nil {
		f.Err = fmt.Errorf("%s: %w: names neither ovs-gre nor route-sync", path, config.ErrInvalid)
	}
	f.shareNodes()
	return f
}

// shareNodes copies the keys nodes, nodesFile and node of ovs-gre to a route-sync that
// has none. In a chain route-sync reads them from the network's directory, which
// exists only after the first ADD or up.
func (f File) shareNodes() {
	if f.OVS != nil && f.Routes != nil && !f.Routes.HasNodes() {
		f.Routes.Nodes, f.Routes.NodesFile, f.Routes.Fan = f.OVS.Nodes, f.OVS.NodesFile, f.OVS.Fan
		if f.Routes.Node == "" {
			f.Routes.Node = f.OVS.Node
		}
	}
}

// UseNodes makes list the nodes of the file's plugins, in place of the nodes file
// that the file names: a caller that has just written that file need not have it
// read again.
func (f *File) UseNodes(list []config.Node) {
	if f.OVS != nil && f.OVS.NodesFile != "" {
		f.OVS.Nodes, f.OVS.NodesFile = list, ""
	}
	if f.Routes != nil && f.Routes.NodesFile != "" {
		f.Routes.Nodes, f.Routes.NodesFile = list, ""
	}
}

// LoadDir reads the conflists of a directory that name our plugins, in the
// order of their names, as runtimes do. A file that cannot be read as JSON is
// among them if the names are in it. Of files that name one network, whosever
// plugins they name, the first counts.
func LoadDir(dir string) ([]File, error) {
	paths, err := Configs(dir)
	var files []File
	first := map[string]string{}
	for _, path := range paths {
		if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
			continue // of a pipe nobody may ever write to the other end
		}
		raw, err := readFile(path)
		if err != nil {
			continue
		}
		f := File{Path: path}
		ours := bytes.Contains(raw, []byte(`"ovs-gre"`)) || bytes.Contains(raw, []byte(`"route-sync"`))
		if ours {
			f = Parse(path, raw)
		} else {
			f.List, _ = config.ParseList(raw) // its problems are not reported: it names none of our plugins
		}
		if f.List != nil && f.List.Name != "" {
			if f.SupersededBy = first[f.List.Name]; f.SupersededBy == "" {
				first[f.List.Name] = path
			}
		}
		if ours && (f.List == nil || f.OVS != nil || f.Routes != nil) {
			files = append(files, f)
		}
	}
	return files, err
}

// Configs returns the files of a directory that libcni reads as configurations.
func Configs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var paths []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, err
}

// Saved returns the conflist that a network's host state was last made from, as the
// network's directory has it. ok is false where no configuration is saved. It serves
// networks whose file was deleted.
func Saved(network string) (f File, ok bool) {
	dir := rundir.NetworkDir(network)
	f.Path = string(dir)
	f.List = &config.List{Name: network}
	var err error
	if raw := dir.SavedConfig(); raw != nil {
		if f.OVS, err = config.Parse(raw); err != nil {
			return f, false
		}
	}
	if raw := dir.SavedRoutesConfig(); raw != nil {
		if f.Routes, err = config.ParseRoutes(raw); err != nil {
			return f, false
		}
	}
	return f, f.OVS != nil || f.Routes != nil
}
