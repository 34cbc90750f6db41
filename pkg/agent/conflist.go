package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/fault"
)

// A template is the conflist as its author left it, before the agent adds what
// only this host knows.
type template struct {
	fields  map[string]json.RawMessage
	plugins []map[string]json.RawMessage
}

// parseTemplate reads a template. The keys that are the agent's must be absent.
func parseTemplate(raw []byte) (*template, error) {
	t := &template{}
	if err := json.Unmarshal(raw, &t.fields); err != nil {
		return nil, fmt.Errorf("%w: %w", config.ErrDecode, err)
	}
	if err := json.Unmarshal(t.fields["plugins"], &t.plugins); err != nil {
		return nil, fmt.Errorf("%w: plugins: %w", config.ErrInvalid, err)
	}
	if t.plugin("ovs-gre") == nil {
		return nil, fmt.Errorf("%w: plugins: ovs-gre is not among them", config.ErrInvalid)
	}
	for _, name := range []string{"ovs-gre", "route-sync"} {
		for _, key := range []string{"nodes", "nodesFile", "node"} {
			if _, set := t.plugin(name)[key]; set {
				return nil, fmt.Errorf("%w: %s: %s is for the agent to set", config.ErrInvalid, name, key)
			}
		}
	}
	return t, nil
}

// plugin is the first plugin of a type, or nil.
func (t *template) plugin(name string) map[string]json.RawMessage {
	for _, p := range t.plugins {
		var typ string
		if json.Unmarshal(p["type"], &typ) == nil && typ == name {
			return p
		}
	}
	return nil
}

// conflist is the file for this host: with the nodes file, the name of this
// host's node where its address cannot tell, and a version where the template
// has none.
func (t *template) conflist(nodesFile, node, version string) ([]byte, error) {
	p := t.plugin("ovs-gre")
	set(p, "nodesFile", nodesFile)
	delete(p, "node")
	if node != "" {
		set(p, "node", node)
	}
	fields := map[string]json.RawMessage{}
	for k, v := range t.fields {
		fields[k] = v
	}
	if fields["cniVersion"] == nil && fields["cniVersions"] == nil {
		set(fields, "cniVersion", version)
	}
	var err error
	if fields["plugins"], err = json.Marshal(t.plugins); err != nil {
		return nil, err
	}
	raw, err := json.MarshalIndent(fields, "", "  ")
	return append(raw, '\n'), err
}

func set(fields map[string]json.RawMessage, key, value string) {
	fields[key], _ = json.Marshal(value) // a string always can be
}

// specVersion is the version of the CNI specification for a runtime: older
// ones attach a container by 1.1.0 and then refuse the result.
func specVersion(runtime string) string {
	name, version, _ := strings.Cut(runtime, "://")
	since := map[string]string{"containerd": "2.0", "cri-o": "1.30"}[name]
	if since == "" || config.VersionLess(strings.TrimPrefix(version, "v"), since) {
		return "1.0.0"
	}
	return "1.1.0"
}

// writeConflist writes the conflist, unless it is there already, and reports whether
// it did. A file of that name that does not name ovs-gre stays, and the error
// wraps fault.ErrForeign. Runtimes see the old file or the new one.
func writeConflist(path string, raw []byte) (bool, error) {
	have, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(have, raw):
		return false, nil
	case err == nil && foreign(path, have):
		return false, fmt.Errorf("%s: %w: it does not name ovs-gre", path, fault.ErrForeign)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	return true, replaceFile(path, raw, 0o644)
}

// ours reports whether a conflist names ovs-gre.
func ours(path string, raw []byte) bool {
	f := conflist.Parse(path, raw)
	return f.List != nil && f.List.Find("ovs-gre") != nil
}

// foreign reports whether a file in our place is somebody else's conflist. One
// that is none at all, of a disk that was full perhaps, is not.
func foreign(path string, raw []byte) bool {
	return conflist.Parse(path, raw).List != nil && !ours(path, raw)
}

// readOurs reports whether there is a conflist of ours.
func readOurs(path string) (raw []byte, ok bool) {
	raw, err := os.ReadFile(path)
	return raw, err == nil && ours(path, raw)
}

// version is the version that a conflist has; "" is none.
func version(raw []byte) string {
	list, err := config.ParseList(raw)
	if err != nil {
		return ""
	}
	return list.CNIVersion
}
