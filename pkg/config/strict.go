package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// encoding/json takes the last of two equal keys, and matches the names of a struct's
// fields in any case. Other programs that read the same text (runtimes, IPAM
// plugins) take the first key, or only the exact name. A text that two programs can
// read differently is refused.

// A shape describes the part of a JSON value that is read: the keys of an object with
// the shapes of their values, or the shape of a list's elements. A value with the nil
// shape is only searched for duplicate keys.
type shape struct {
	keys    []part
	element *shape
}

type part struct {
	key string
	is  *shape
}

// leaves returns keys whose values have the nil shape.
func leaves(keys ...string) []part {
	parts := make([]part, len(keys))
	for i, k := range keys {
		parts[i].key = k
	}
	return parts
}

var (
	nodesShape  = &shape{keys: leaves("underlay", "containers"), element: &shape{keys: leaves("name", "address", "subnets", "key")}}
	rangesShape = &shape{element: &shape{element: &shape{keys: leaves("subnet", "rangeStart", "rangeEnd", "gateway")}}}
	routesShape = &shape{element: &shape{keys: leaves("dst", "gw", "mtu", "advmss", "priority", "table", "scope")}}
	validShape  = &shape{element: &shape{keys: leaves("containerID", "ifname")}}
	// hostLocalShape are the keys of host-local (its backend/allocator); those of
	// other IPAM plugins are theirs.
	hostLocalShape = &shape{keys: append(leaves("type", "dataDir", "subnet", "rangeStart", "rangeEnd", "gateway", "resolvConf"),
		part{"ranges", rangesShape}, part{"routes", routesShape})}
	otherShape = &shape{keys: leaves("type")}
)

// The shapes of a plugin's configuration, with host-local and with another IPAM plugin.
// The setters of keys.go report other unknown keys.
var (
	withHostLocal = &shape{keys: append([]part{{"ipam", hostLocalShape}}, confParts...)}
	withOther     = &shape{keys: append([]part{{"ipam", otherShape}}, confParts...)}
	confParts     = []part{
		{"nodes", nodesShape},
		{"runtimeConfig", &shape{keys: append(leaves("ips", "mac"), part{"ipRanges", rangesShape})}},
		{"args", &shape{keys: []part{{"cni", &shape{keys: leaves("ips", "mac")}}}}},
		{"cni.dev/valid-attachments", validShape}, {"cni.dev/attachments", validShape},
	}
)

// find returns the shape of a key's value, and whether the key is read.
func (s *shape) find(key []byte) (inner *shape, known bool) {
	if s == nil {
		return nil, true
	}
	for i := range s.keys {
		if s.keys[i].key == string(key) {
			return s.keys[i].is, true
		}
	}
	return nil, len(s.keys) == 0
}

// strict reports keys that stand twice in one object, at any depth, and keys that differ
// only by case from a key of s. at is the value's name in messages; raw is valid JSON.
func (p *problems) strict(at string, raw []byte, s *shape) {
	w := walk{problems: p, raw: raw, at: at}
	w.value(s)
}

// A walk goes through JSON once. It allocates nothing for a text without problems: lists
// of nodes are long.
type walk struct {
	*problems
	raw  []byte
	next int
	at   string
	path []step
	keys [][]byte // those of the objects being read, the innermost last
}

// A step leads into an object or, where key is nil, into a list.
type step struct {
	key   []byte
	index int
}

func (w *walk) where() string {
	path := w.at
	for _, s := range w.path {
		if s.key == nil {
			path += "[" + strconv.Itoa(s.index) + "]"
			continue
		}
		if path != "" {
			path += "."
		}
		path += printable(string(s.key))
	}
	return path
}

// token returns the first byte of the next value, key or closing bracket.
func (w *walk) token() byte {
	for ; w.next < len(w.raw); w.next++ {
		switch c := w.raw[w.next]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
		default:
			return c
		}
	}
	return 0
}

func (w *walk) value(s *shape) {
	switch w.token() {
	case '{':
		w.next++
		w.object(s)
	case '[':
		w.next++
		var element *shape
		if s != nil {
			element = s.element
		}
		for i := 0; w.token() != ']' && w.next < len(w.raw); i++ {
			w.path = append(w.path, step{index: i})
			w.value(element)
			w.path = w.path[:len(w.path)-1]
		}
		w.next++
	case '"':
		w.text()
	default: // a number, true, false, null
		for w.next++; w.next < len(w.raw) && !strings.ContainsRune(",]} \t\r\n", rune(w.raw[w.next])); {
			w.next++
		}
	}
}

// manyKeys is the number of keys of an object from which they are kept in a map.
const manyKeys = 32

func (w *walk) object(s *shape) {
	first := len(w.keys)
	var many map[string]bool
	for w.token() == '"' {
		key := w.text()
		w.path = append(w.path, step{key: key})
		same := func(k []byte) bool { return bytes.Equal(k, key) }
		if many[string(key)] || many == nil && slices.ContainsFunc(w.keys[first:], same) {
			w.invalid(w.where(), nil, "the key stands twice: leave out one of the two")
		}
		w.keys = append(w.keys, key)
		if many != nil {
			many[string(key)] = true
		} else if len(w.keys)-first > manyKeys {
			many = map[string]bool{}
			for _, k := range w.keys[first:] {
				many[string(k)] = true
			}
		}
		inner, known := s.find(key)
		if !known {
			w.otherCase(s, key)
		}
		w.value(inner)
		w.path = w.path[:len(w.path)-1]
	}
	w.keys = w.keys[:first]
	w.next++
}

// otherCase reports a key that encoding/json would read as a key of s, because it differs
// only by case. Top-level keys are left to fields, which reports them as unknown,
// unless they look like a runtime's.
func (w *walk) otherCase(s *shape, key []byte) {
	if len(w.path) == 1 && w.at == "" && !isRuntimeKey(string(key)) {
		return
	}
	for _, part := range s.keys {
		if strings.EqualFold(part.key, string(key)) {
			at := w.where()
			w.path[len(w.path)-1].key = []byte(part.key)
			w.invalid(at, nil, fmt.Sprintf("unknown key (did you mean %q?)", w.where()))
			return
		}
	}
}

// text reads a JSON string and returns it decoded.
func (w *walk) text() []byte {
	begin, plain := w.next, true
	for w.next++; w.next < len(w.raw) && w.raw[w.next] != '"'; w.next++ {
		switch c := w.raw[w.next]; {
		case c == '\\':
			plain = false
			w.next++
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	w.next = min(w.next+1, len(w.raw))
	quoted := w.raw[begin:w.next]
	if plain && len(quoted) >= 2 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	_ = json.Unmarshal(quoted, &s)
	return []byte(s)
}
