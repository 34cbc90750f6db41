package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrDecode is wrapped by errors about input that is not JSON, or not a JSON object.
	ErrDecode = errors.New("not a JSON object")
	// ErrInvalid is wrapped by errors that only a change of the configuration mends.
	ErrInvalid = errors.New("invalid configuration")
	// ErrUnsupported is wrapped by errors about a value of the right form that
	// this version does not know. It wraps ErrInvalid.
	ErrUnsupported = fmt.Errorf("%w: unsupported value", ErrInvalid)
)

// A Problem is one error in a configuration. It wraps ErrInvalid,
// or ErrUnsupported where Unsupported is set.
type Problem struct {
	// Key is the path of the key, such as "tunnel.type" or "nodes[1].address".
	Key string
	// Value is the wrong value as it was written, cut to 64 bytes; "" where the
	// problem is not about a value.
	Value string
	// Reason says what is wrong, and what would be right.
	Reason string
	// Unsupported: the value has the right form but is not known.
	Unsupported bool
}

func (p *Problem) Error() string {
	if p.Value == "" {
		return fmt.Sprintf("%s: %s", p.Key, p.Reason)
	}
	return fmt.Sprintf("%s %s: %s", p.Key, p.Value, p.Reason)
}

func (p *Problem) Unwrap() error {
	if p.Unsupported {
		return ErrUnsupported
	}
	return ErrInvalid
}

// problems collects the problems of a configuration, which are reported at once.
type problems []error

// noneOf reports whether nothing was said against keys, nor against what is in them.
func (p problems) noneOf(keys ...string) bool {
	for _, err := range p {
		var pr *Problem
		if !errors.As(err, &pr) {
			continue
		}
		for _, k := range keys {
			if rest, ok := strings.CutPrefix(pr.Key, k); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
				return false
			}
		}
	}
	return true
}

func (p problems) err() error { return errors.Join(p...) }

func (p *problems) invalid(key string, value []byte, reason string) {
	*p = append(*p, &Problem{Key: key, Value: oneLine(value), Reason: reason})
}

func (p *problems) unsupported(key, value, reason string) {
	*p = append(*p, &Problem{Key: key, Value: string(quote(value)), Reason: reason, Unsupported: true})
}

func (p *problems) unknown(prefix, key string, known []string) {
	reason := "unknown key"
	if k := nearest(key, known); k != "" {
		reason = fmt.Sprintf("unknown key (did you mean %q?)", prefix+k)
	}
	if key == "" || !isPrintable(key) {
		key = strconv.Quote(key)
	}
	key = Clip(key, 64)
	p.invalid(prefix+key, nil, reason)
}

// oneLine returns JSON as a message shows it: compact, printable, cut.
func oneLine(raw []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) == nil {
		raw = b.Bytes()
	}
	return printable(string(raw))
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Printable keeps others' text from breaking a line of a log, or a terminal:
// what breaks a line becomes a space, and a question mark what does not print
// (unicode.IsPrint), such as control characters and what turns the direction of
// writing.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return '?'
	}, s)
}

// Clip cuts a text to a number of bytes, and marks that.
func Clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// printable is an operator's text as a message shows it.
func printable(s string) string { return Printable(Clip(s, 64)) }

func quote(s string) []byte { return []byte(strconv.Quote(Clip(s, 64))) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// decode decodes one JSON value; the error says in words which type is expected.
func decode[T any](raw json.RawMessage) (T, error) {
	var v T
	err := json.Unmarshal(raw, &v)
	if err == nil && string(raw) != "null" {
		return v, nil
	}
	var want string
	switch any(v).(type) {
	case string:
		want = "a string"
	case bool:
		want = "true or false"
	case []string:
		want = "a list of strings"
	case *uint32:
		want = "a whole number from 0 to 4294967295"
	case int:
		want = "a whole number"
	default:
		want = "an object"
	}
	return v, errors.New("want " + want)
}

// nearest returns the known key of which key is most likely a misspelling: one edit
// away, or two where key has more than 5 characters; "" means none.
func nearest(key string, known []string) string {
	best, at := 2, ""
	if len(key) > 5 {
		best = 3
	}
	for _, k := range known {
		if d := distance(strings.ToLower(key), strings.ToLower(k)); d < best {
			best, at = d, k
		}
	}
	return at
}

// distance returns the number of edits between two strings; swapping two neighbouring
// letters counts as one. For more than 32 bytes it returns 32.
func distance(a, b string) int {
	if len(a) > 32 || len(b) > 32 {
		return 32
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
