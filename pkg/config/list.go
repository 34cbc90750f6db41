package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A List is a conflist, or a single plugin's configuration read as one.
type List struct {
	// Name is the network's.
	Name string
	// CNIVersion is the version that a runtime which knows cniVersions uses: the
	// highest of cniVersion and cniVersions; "" means that neither is given.
	CNIVersion string
	// Plugins are the plugins of the chain, in the order in which ADD calls them.
	Plugins []Plugin
}

// A Plugin is one plugin of a conflist.
type Plugin struct {
	// Type is the plugin's name.
	Type string
	// IPAM is the name of its IPAM plugin; "" means none.
	IPAM string
	// Raw is the plugin's configuration with the name and cniVersion of the list,
	// as libcni passes it.
	Raw []byte
}

// ParseList reads a conflist, or a single plugin's configuration. The error wraps
// ErrDecode or ErrInvalid. Parse and ParseRoutes check the plugins' keys; ParseList
// refuses duplicate keys in a list that names ovs-gre or route-sync, because a
// runtime passes only one of the two on.
func ParseList(raw []byte) (*List, error) {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(raw, &fields)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return nil, fmt.Errorf("%w: at byte %d: %w", ErrDecode, syntax.Offset, syntax)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDecode, err)
	}
	l := &List{}
	var versions []string
	var plugins []map[string]json.RawMessage
	for key, into := range map[string]any{"name": &l.Name, "cniVersion": &l.CNIVersion, "cniVersions": &versions, "plugins": &plugins} {
		if value, ok := fields[key]; ok && json.Unmarshal(value, into) != nil {
			return nil, fmt.Errorf("%w: %s: %s", ErrDecode, key, oneLine(value))
		}
	}
	if plugins == nil {
		if stringOf(fields["type"]) == "" {
			return nil, fmt.Errorf("%w: neither plugins nor type: no CNI configuration", ErrInvalid)
		}
		plugins = append(plugins, fields)
	}
	for _, v := range versions {
		if l.CNIVersion == "" || VersionLess(l.CNIVersion, v) {
			l.CNIVersion = v
		}
	}
	if err := duplicateKeys(raw, plugins); err != nil {
		return nil, err
	}
	for i, fields := range plugins {
		p, err := l.plugin(fields)
		if err != nil {
			return nil, fmt.Errorf("%w: plugins[%d]: %w", ErrInvalid, i, err)
		}
		l.Plugins = append(l.Plugins, p)
	}
	return l, nil
}

// duplicateKeys tells keys that stand twice in the list itself or in the configurations
// of our plugins: the others' are not for us to judge.
func duplicateKeys(raw []byte, plugins []map[string]json.RawMessage) error {
	ours := func(fields map[string]json.RawMessage) bool {
		return slices.Contains([]string{"ovs-gre", "route-sync"}, stringOf(fields["type"]))
	}
	if !slices.ContainsFunc(plugins, ours) {
		return nil
	}
	var p problems
	p.strict("", raw, nil)
	for i, fields := range plugins {
		if !ours(fields) {
			at := fmt.Sprintf("plugins[%d].", i)
			p = slices.DeleteFunc(p, func(err error) bool {
				var pr *Problem
				return errors.As(err, &pr) && strings.HasPrefix(pr.Key, at)
			})
		}
	}
	return p.err()
}

// plugin makes a Plugin of its object in the list, and adds the list's name and version.
func (l *List) plugin(fields map[string]json.RawMessage) (Plugin, error) {
	var ipam struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(fields["ipam"], &ipam)
	p := Plugin{Type: stringOf(fields["type"]), IPAM: ipam.Type}
	if p.Type == "" {
		return p, errors.New("type: missing")
	}
	for key, value := range map[string]string{"name": l.Name, "cniVersion": l.CNIVersion} {
		raw, err := json.Marshal(value)
		if err != nil {
			return p, err
		}
		fields[key] = raw
	}
	var err error
	p.Raw, err = json.Marshal(fields)
	return p, err
}

// Find returns the first plugin of a type, or nil.
func (l *List) Find(plugin string) *Plugin {
	for i := range l.Plugins {
		if l.Plugins[i].Type == plugin {
			return &l.Plugins[i]
		}
	}
	return nil
}

// VersionLess reports whether version a, such as 1.0.0, is before b. It compares number
// by number; a part that is not a number counts as 0.
func VersionLess(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(as), len(bs)) {
		var x, y int
		if i < len(as) {
			x, _ = strconv.Atoi(as[i])
		}
		if i < len(bs) {
			y, _ = strconv.Atoi(bs[i])
		}
		if x != y {
			return x < y
		}
	}
	return false
}
