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
	// CNIVersion is the one that a runtime of today uses: the highest of
	// cniVersions, else cniVersion; "" means neither is given.
	CNIVersion string
	// Plugins are the chain, in its order.
	Plugins []Plugin
}

// A Plugin is one link of the chain.
type Plugin struct {
	// Type is the plugin's name.
	Type string
	// IPAM is the name of the IPAM plugin; "" is none.
	IPAM string
	// Raw is the configuration as libcni hands it to the plugin.
	Raw []byte
}

// ParseList reads a conflist, or a single configuration. The error wraps
// ErrDecode or ErrInvalid. What the plugins' own keys say is for Parse and
// ParseRoutes; a key that stands twice, in a list that names our plugins, is
// told here, because runtimes leave but one of the two.
func ParseList(raw []byte) (*List, error) {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(raw, &fields)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return nil, fmt.Errorf("%w: at byte %d: %v", ErrDecode, syntax.Offset, syntax)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDecode, err)
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

// plugin puts the list's name and version in, as libcni does.
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

// VersionLess compares versions such as 1.0.0 number by number. What is not a
// number counts as 0.
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
