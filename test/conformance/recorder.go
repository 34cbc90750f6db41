package conformance

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// What a host has where. The directory of the recorder is the first of
// CNI_PATH, that of the tools the last.
const (
	binDir  = "/opt/cni/bin"
	ownDir  = "/opt/cni/conformance"
	cniPath = ownDir + ":" + binDir + ":" + ownDir + "/tools"
)

// recorder is an IPAM plugin that writes down how it was called and does what
// the chain's own IPAM plugin does, unless it is told to fail or to wait.
const recorder = "recorder"

const recorderScript = `#!/bin/sh
dir=${0%/*}
conf=$(cat)
printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_IFNAME" "${CNI_NETNS-unset}" "$CNI_ARGS" "$CNI_PATH" \
	"$(printf %s "$conf" | base64 -w0)" >>"$dir/calls"
echo "recorder was here: $CNI_COMMAND" >&2
if [ -p "$dir/hold.$CNI_COMMAND" ]; then : >"$dir/held"; read -r _ <"$dir/hold.$CNI_COMMAND"; fi
for f in "$dir/fail.$CNI_COMMAND.$CNI_CONTAINERID" "$dir/fail.$CNI_COMMAND"; do
	if [ -f "$f" ]; then cat "$f"; exit 1; fi
done
if [ -f "$dir/say.$CNI_COMMAND" ]; then cat "$dir/say.$CNI_COMMAND"; exit 0; fi
printf %s "$conf" | "` + binDir + `/$(cat "$dir/real")"
`

// A record is one call of the recorder.
type record struct {
	verb, id, ifname, netns, args, path string
	stdin                               string
}

// own is the path, outside, of a file in the recorder's directory.
func (t *try) own(name string) string { return filepath.Join(t.host.Dir, ownDir, name) }

// tell makes the recorder do something: "fail.VERB" prints text and fails,
// "say.VERB" prints it and succeeds.
func (t *try) tell(what, text string) error { return os.WriteFile(t.own(what), []byte(text), 0o644) }

// forget makes the recorder do as before.
func (t *try) forget(what ...string) error {
	var errs []error
	for _, w := range what {
		if err := os.Remove(t.own(w)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// calls are the recorder's records since fresh.
func (t *try) calls() ([]record, error) {
	raw, err := os.ReadFile(t.own("calls"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []record
	for line := range strings.Lines(string(raw)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 7 {
			return nil, errors.New("recorder: " + line)
		}
		stdin, err := base64.StdEncoding.DecodeString(f[6])
		if err != nil {
			return nil, err
		}
		list = append(list, record{f[0], f[1], f[2], f[3], f[4], f[5], string(stdin)})
	}
	return list, err
}

// called are those of a verb and, unless "", a container.
func (t *try) called(verb, id string) ([]record, error) {
	all, err := t.calls()
	var list []record
	for _, r := range all {
		if r.verb == verb && (id == "" || r.id == id) {
			list = append(list, r)
		}
	}
	return list, err
}

// fresh forgets everything that the recorder was told and has written down.
func (t *try) fresh() error {
	entries, err := os.ReadDir(t.own(""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		n := e.Name()
		if n == "calls" || n == "held" || strings.HasPrefix(n, "fail.") || strings.HasPrefix(n, "say.") || strings.HasPrefix(n, "hold.") {
			if err := os.Remove(t.own(n)); err != nil {
				return err
			}
		}
	}
	return nil
}
