// Package conflist is a conflist of this host that names our plugins, and what is
// done with the chain as a whole, without a container: up and down.
package conflist

import (
	"bytes"
	"errors"
	"fmt"
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
	// Path is the file's; List what it says. List is nil where Err says why.
	Path string
	List *config.List
	// OVS is the configuration of ovs-gre, Routes that of route-sync; nil
	// where the chain has no such plugin.
	OVS    *config.Network
	Routes *config.Routes
	// Err is all that is wrong with the file.
	Err error
	// SupersededBy is the path of a file of the same network that LoadDir has found
	// before this one. Runtimes take that; what this file says counts for nothing.
	// "" means that there is none.
	SupersededBy string
}

// Superseded says why the file does not count; "" means that it does.
func (f File) Superseded() string {
	if f.SupersededBy == "" {
		return ""
	}
	return fmt.Sprintf("%s: does not count: %s names network %s too, and comes first", f.Path, f.SupersededBy, f.Name())
}

// Name is the network's, or else the file's.
func (f File) Name() string {
	if f.List != nil && f.List.Name != "" {
		return f.List.Name
	}
	return filepath.Base(f.Path)
}

// Base is what the file's plugins have in common: nodes above all. It is nil
// where there is neither.
func (f File) Base() *config.Base {
	switch {
	case f.OVS != nil:
		return &f.OVS.Base
	case f.Routes != nil:
		return &f.Routes.Base
	}
	return nil
}

// Bridge is the OVS bridge of the chain's network; "" where the chain has no
// ovs-gre. It is what route-sync takes for its own without a previous result.
func (f File) Bridge() string {
	if f.OVS != nil {
		return f.OVS.Bridge
	}
	return ""
}

// Load reads a conflist. What is wrong with it is in File.Err.
func Load(path string) File {
	raw, err := os.ReadFile(path)
	if err != nil {
		return File{Path: path, Err: fmt.Errorf("%s: %w", path, err)}
	}
	return Parse(path, raw)
}

// Parse is Load of a file whose content is raw.
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

// shareNodes gives route-sync the nodes of the ovs-gre before it, which hands them
// on only once it has made something.
func (f File) shareNodes() {
	if f.OVS != nil && f.Routes != nil && len(f.Routes.Nodes) == 0 && f.Routes.NodesFile == "" {
		f.Routes.Nodes, f.Routes.NodesFile = f.OVS.Nodes, f.OVS.NodesFile
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
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		f := File{Path: path}
		ours := bytes.Contains(raw, []byte(`"ovs-gre"`)) || bytes.Contains(raw, []byte(`"route-sync"`))
		if ours {
			f = Parse(path, raw)
		} else {
			f.List, _ = config.ParseList(raw) // what is wrong with it is not for us to say
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

// Configs lists the files of a directory that libcni takes for configurations.
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

// Saved is the chain that a network's host state was last made of, for a
// conflist that is gone. ok is false where there is none.
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
