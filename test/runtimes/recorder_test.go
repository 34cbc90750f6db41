package runtimes

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// callsPath is where, on a host, the recorder writes down its calls.
const callsPath = "/run/cni-calls"

// recorderScript stands in the place of a plugin: it writes down how it was
// called, then the plugin, $PLUGIN, does its work. A line is written at once,
// for plugins may run at the same time.
const recorderScript = `#!/bin/sh
conf=$(/bin/cat)
printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_IFNAME" "${CNI_NETNS-}" "${CNI_ARGS-}" \
	"$(printf %s "$conf" | /usr/bin/base64 -w0)" >>` + callsPath + `
printf %s "$conf" | '$PLUGIN'
`

// plugins is a directory with all plugins, of which ovs-gre is recorded.
var plugins = sync.OnceValues(func() (string, error) {
	bin, err := cnitest.Build()
	if err != nil {
		return "", err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "runtimes-plugins-")
	if err != nil {
		return "", err
	}
	pluginsDir = dir
	entries, err := os.ReadDir(bin)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Name() == "ovs-gre" {
			continue
		}
		if err := os.Symlink(filepath.Join(bin, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return "", err
		}
	}
	script := strings.ReplaceAll(recorderScript, "$PLUGIN", filepath.Join(bin, "ovs-gre"))
	return dir, os.WriteFile(filepath.Join(dir, "ovs-gre"), []byte(script), 0o755)
})

var pluginsDir string

func removePlugins() {
	if pluginsDir != "" {
		_ = os.RemoveAll(pluginsDir)
	}
}

// A call is one call of ovs-gre by a runtime.
type call struct {
	verb, id, ifname, netns, args string
	conf                          struct {
		PrevResult    json.RawMessage            `json:"prevResult"`
		RuntimeConfig map[string]json.RawMessage `json:"runtimeConfig"`
	}
}

// calls are those of a host so far.
func calls(t *testing.T, h *testnet.Host) []call {
	t.Helper()
	var list []call
	for l := range strings.Lines(h.Shell(t, "cat "+callsPath+" 2>/dev/null || true")) {
		f := strings.Split(strings.TrimSuffix(l, "\n"), "\t")
		if len(f) != 6 {
			t.Fatalf("%s: no line of the recorder: %q", h.Name, l)
		}
		c := call{verb: f[0], id: f[1], ifname: f[2], netns: f[3], args: f[4]}
		conf, err := base64.StdEncoding.DecodeString(f[5])
		if err != nil {
			t.Fatal(err)
		}
		// VERSION may come without a configuration.
		if len(conf) > 0 {
			if err := json.Unmarshal(conf, &c.conf); err != nil {
				t.Fatalf("%s: %s: %v: %s", h.Name, c.verb, err, conf)
			}
		}
		list = append(list, c)
	}
	return list
}

// kind is what one call has in common with others, such as
// "DEL (no netns, prevResult)".
func (c call) kind() string {
	var about []string
	if c.verb == "DEL" && c.netns == "" {
		about = append(about, "no netns")
	}
	if c.verb == "DEL" && len(c.conf.PrevResult) > 0 {
		about = append(about, "prevResult")
	}
	if about == nil {
		return c.verb
	}
	return c.verb + " (" + strings.Join(about, ", ") + ")"
}

// verbs tells how often each kind of call was seen, in the order in which they
// came.
func verbs(list []call) string {
	count := map[string]int{}
	var kinds []string
	for _, c := range list {
		if count[c.kind()]++; count[c.kind()] == 1 {
			kinds = append(kinds, c.kind())
		}
	}
	slices.Sort(kinds)
	for i, k := range kinds {
		kinds[i] = fmt.Sprintf("%d %s", count[k], k)
	}
	return strings.Join(kinds, ", ")
}

// saw puts the calls of all hosts so far into the table.
func (l *line) saw(t *testing.T, lab *testnet.Lab) {
	t.Helper()
	l.calls = nil
	for _, h := range lab.Hosts {
		l.calls = append(l.calls, calls(t, h)...)
	}
}

// only wants no other kinds of calls than these, and each of them that has no
// parentheses: what the documentation says that the runtime calls.
func (l *line) only(t *testing.T, kinds ...string) {
	t.Helper()
	seen := map[string]bool{}
	for _, c := range l.calls {
		if seen[c.kind()] = true; !slices.Contains(kinds, c.kind()) {
			t.Errorf("%s has called %s", l.runtime, c.kind())
		}
	}
	for _, k := range kinds {
		if !strings.Contains(k, "(") && !seen[k] {
			t.Errorf("%s has not called %s", l.runtime, k)
		}
	}
}
