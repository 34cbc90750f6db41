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

// encoding/json takes the last of two equal keys, and fills a struct from keys
// in any case. Others who read the same text take the first, or only the one
// that is spelled right. What two read differently is refused.

// A shape is what is read of a JSON value: the keys of an object, with the
// shapes of their values, or the shape of a list's elements. Nil is what is
// looked into for keys that stand twice, and no further.
type shape struct {
	keys []part
	each *shape
}

type part struct {
	key string
	is  *shape
}

// leaves are keys whose values are not looked into.
func leaves(keys ...string) []part {
	parts := make([]part, len(keys))
	for i, k := range keys {
		parts[i].key = k
	}
	return parts
}

var (
	nodesShape  = &shape{each: &shape{keys: leaves("name", "address", "subnets", "key")}}
	rangesShape = &shape{each: &shape{each: &shape{keys: leaves("subnet", "rangeStart", "rangeEnd", "gateway")}}}
	routesShape = &shape{each: &shape{keys: leaves("dst", "gw", "mtu", "advmss", "priority", "table", "scope")}}
	validShape  = &shape{each: &shape{keys: leaves("containerID", "ifname")}}
	// hostLocalShape are the keys of host-local (its backend/allocator); those of
	// other IPAM plugins are theirs.
	hostLocalShape = &shape{keys: append(leaves("type", "dataDir", "subnet", "rangeStart", "rangeEnd", "gateway", "resolvConf"),
		part{"ranges", rangesShape}, part{"routes", routesShape})}
	otherShape = &shape{keys: leaves("type")}
)

// A plugin's configuration, with host-local and without. Keys beside these, and
// those in tunnel and dns, are told where they are read.
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

// find returns the part that a key leads to.
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

// strict tells keys that stand twice in one object, wherever it is, and keys
// that are spelled almost as what s reads. at is what messages call the value;
// raw is valid JSON.
func (p *problems) strict(at string, raw []byte, s *shape) {
	w := walk{problems: p, raw: raw, at: at}
	w.value(s)
}

// A walk goes once through JSON. It allocates nothing for what is in order:
// lists of nodes are long.
type walk struct {
	*problems
	raw  []byte
	next int
	at   string
	path []step
	keys [][]byte // of the objects that are open, the innermost last
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

// token is the first byte of the next value, key or closing bracket.
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
		var each *shape
		if s != nil {
			each = s.each
		}
		for i := 0; w.token() != ']' && w.next < len(w.raw); i++ {
			w.path = append(w.path, step{index: i})
			w.value(each)
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

// manyKeys is up to how many keys of an object are compared one by one.
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

// otherCase tells a key that encoding/json takes for one that s reads. Those of
// the configuration itself are told as unknown, unless they pass as the
// runtime's.
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

// text reads a string and returns it decoded.
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
