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

// A template is a conflist without the keys that the agent adds on each host.
type template struct {
	fields  map[string]json.RawMessage
	plugins []map[string]json.RawMessage
	// fan: nodes is no list, and the template's own.
	fan bool
}

// parseTemplate reads a template. The keys that the agent adds must be absent, but for
// nodes that is no list.
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
			value, set := t.plugin(name)[key]
			if key == "nodes" && name == "ovs-gre" && config.IsFan(value) {
				t.fan = true
				continue
			}
			if set {
				return nil, fmt.Errorf("%w: %s: %s is for the agent to set", config.ErrInvalid, name, key)
			}
		}
	}
	return t, nil
}

// plugin returns the first plugin of a type, or nil.
func (t *template) plugin(name string) map[string]json.RawMessage {
	for _, p := range t.plugins {
		var typ string
		if json.Unmarshal(p["type"], &typ) == nil && typ == name {
			return p
		}
	}
	return nil
}

// conflist returns the conflist for this host: the template with the key nodesFile,
// unless its nodes is no list; with the key node, unless node is ""; and with the version, if the template has none.
func (t *template) conflist(nodesFile, node, version string) ([]byte, error) {
	p := t.plugin("ovs-gre")
	if !t.fan {
		set(p, "nodesFile", nodesFile)
	}
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

// specVersion returns the version of the CNI specification for a runtime. A runtime
// without support for 1.1.0 calls ADD with it and then refuses the result.
func specVersion(runtime string) string {
	name, version, _ := strings.Cut(runtime, "://")
	since := map[string]string{"containerd": "2.0", "cri-o": "1.30"}[name]
	if since == "" || config.VersionLess(strings.TrimPrefix(version, "v"), since) {
		return "1.0.0"
	}
	return "1.1.0"
}

// writeConflist writes the conflist unless the file has this content, and reports whether it
// did. A conflist at path that does not name ovs-gre stays; the error then wraps
// fault.ErrForeign. Runtimes see the old file or the new one.
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

// foreign reports whether a file is a conflist that does not name ovs-gre. A file that is
// no conflist, such as one truncated by a full disk, is not foreign.
func foreign(path string, raw []byte) bool {
	return conflist.Parse(path, raw).List != nil && !ours(path, raw)
}

// readOurs reads a conflist; ok is false unless it names ovs-gre.
func readOurs(path string) (raw []byte, ok bool) {
	raw, err := os.ReadFile(path)
	return raw, err == nil && ours(path, raw)
}

// version returns the CNIVersion of a conflist; "" means none.
func version(raw []byte) string {
	list, err := config.ParseList(raw)
	if err != nil {
		return ""
	}
	return list.CNIVersion
}
