package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bound is how long one call may take, on however busy a machine.
const bound = time.Minute

// An answer is what came of calling a plugin.
type answer struct {
	plugin, verb   string
	stdout, stderr string
	// exit is the exit status; -1 where it ended in no other way than by a signal.
	exit int
	took time.Duration
}

// A failure is an answer that tells of an error.
type failure struct {
	answer
	// The keys of the error as it was printed; code is 0 where there was none.
	code               uint
	version            string
	msg, details, flaw string
}

func (f *failure) Error() string {
	text := fmt.Sprintf("%s %s: ", f.plugin, f.verb)
	if f.flaw != "" {
		return text + fmt.Sprintf("exit %d, %s: stdout %q, stderr %q", f.exit, f.flaw, short(f.stdout), short(f.stderr))
	}
	text += fmt.Sprintf("code %d: %s", f.code, short(f.msg))
	if f.details != "" && !strings.Contains(f.msg, f.details) {
		text += ": " + short(f.details)
	}
	return text
}

// short keeps a text in a line of the report.
func short(s string) string {
	const most = 300
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// failure reads the error that a plugin printed, or returns nil.
func (a answer) failure() *failure {
	if a.exit == 0 {
		return nil
	}
	f := &failure{answer: a}
	var e struct {
		CNIVersion string  `json:"cniVersion"`
		Code       *uint   `json:"code"`
		Msg        *string `json:"msg"`
		Details    string  `json:"details"`
	}
	if err := json.Unmarshal([]byte(a.stdout), &e); err != nil {
		f.flaw = "no JSON error on standard output"
		return f
	}
	f.version, f.details = e.CNIVersion, e.Details
	if e.Code == nil || e.Msg == nil || *e.Msg == "" || *e.Code == 0 {
		f.flaw = "an error without code or msg"
		return f
	}
	f.code, f.msg = *e.Code, *e.Msg
	return f
}

// ok is nil, or the failure.
func (a answer) ok() error {
	if f := a.failure(); f != nil {
		return f
	}
	return nil
}

// fails wants a failure, with one of the codes if any are given, whose message
// or details have all the words.
func (a answer) fails(codes []uint, words ...string) error {
	f := a.failure()
	if f == nil {
		return fmt.Errorf("%s %s: succeeded, want an error%s", a.plugin, a.verb, wanted(codes))
	}
	return f.is(codes, words...)
}

func (f *failure) is(codes []uint, words ...string) error {
	if f.flaw != "" {
		return f
	}
	if len(codes) > 0 && !slices.Contains(codes, f.code) {
		return fmt.Errorf("%w: want%s", f, wanted(codes))
	}
	for _, w := range words {
		if !strings.Contains(f.msg+" "+f.details, w) {
			return fmt.Errorf("%w: want %q in it", f, w)
		}
	}
	return nil
}

// failed is fails for a verb of the whole chain.
func failed(err error, codes []uint, words ...string) error {
	var f *failure
	if errors.As(err, &f) {
		return f.is(codes, words...)
	}
	if err == nil {
		return fmt.Errorf("succeeded, want an error%s", wanted(codes))
	}
	return err
}

func wanted(codes []uint) string {
	if len(codes) == 0 {
		return ""
	}
	return fmt.Sprintf(" of code %s", strings.Trim(strings.ReplaceAll(fmt.Sprint(codes), " ", " or "), "[]"))
}

// code is a list of one.
func code(c ...uint) []uint { return c }

// exec calls a plugin. env is what it gets beside PATH; "-KEY" takes one out
// that came before.
func (t *try) exec(plugin, verb, stdin string, env ...string) answer {
	ctx, cancel := context.WithTimeout(t.ctx, bound)
	defer cancel()
	dir := binDir
	if _, err := os.Stat(filepath.Join(t.chain.Bin, plugin)); err != nil {
		dir = ownDir + "/tools"
	}
	cmd := t.host.Command(ctx, dir+"/"+plugin)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, e := range env {
		name, _, _ := strings.Cut(strings.TrimPrefix(e, "-"), "=")
		cmd.Env = slices.DeleteFunc(cmd.Env, func(have string) bool { return strings.HasPrefix(have, name+"=") })
		if !strings.HasPrefix(e, "-") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	a := answer{plugin: plugin, verb: verb, stdout: stdout.String(), stderr: stderr.String(), took: time.Since(begin)}
	var status *exec.ExitError
	switch {
	case errors.As(err, &status):
		a.exit = status.ExitCode()
	case err != nil:
		a.exit = -1
		a.stderr += err.Error()
	}
	if ctx.Err() != nil {
		a.exit, a.stderr = -1, fmt.Sprintf("it did not end within %v", bound)
	}
	t.record(a)
	return a
}

// A box is one interface of a container.
type box struct {
	id, ifname, netns string
	// net is the network that it was attached to last.
	net network
	// prev is the result of the chain's ADD; "" is none.
	prev   string
	result result
}

// call calls plugin i of the network as a runtime does for a box, nil if the
// verb has none; more are keys of the configuration, env changes of the
// environment.
func (t *try) call(n network, i int, verb string, b *box, more conf, env ...string) answer {
	base := []string{"CNI_COMMAND=" + verb, "CNI_PATH=" + cniPath}
	if b != nil {
		base = append(base, "CNI_CONTAINERID="+b.id, "CNI_IFNAME="+b.ifname, "CNI_NETNS="+b.netns)
	}
	return t.exec(n.plugins[i].typ(), verb, n.stdin(i, more), append(base, env...)...)
}

// prevResult is the key, if there is a previous result.
func prevResult(prev string) conf {
	if prev == "" {
		return conf{}
	}
	return conf{"prevResult": json.RawMessage(prev)}
}

// add calls ADD of the chain.
func (t *try) add(n network, b *box, env ...string) error {
	return t.addWith(n, b, nil, env...)
}

// addWith is add with more keys for the first plugin.
func (t *try) addWith(n network, b *box, more conf, env ...string) error {
	prev := ""
	b.net, b.prev, b.result = n, "", result{}
	for i := range n.plugins {
		keys := prevResult(prev)
		if i == 0 {
			for k, v := range more {
				keys[k] = v
			}
		}
		a := t.call(n, i, "ADD", b, keys, env...)
		if err := a.ok(); err != nil {
			return err
		}
		prev = a.stdout
	}
	b.prev = prev
	if err := json.Unmarshal([]byte(prev), &b.result); err != nil {
		return fmt.Errorf("result: %w: %q", err, short(prev))
	}
	return b.attached()
}

// attached wants the box's interface in the result.
func (b *box) attached() error {
	if b.result.inner(b) == nil {
		return fmt.Errorf("ADD: no interface %s with a sandbox in the result: %q", b.ifname, short(b.prev))
	}
	return nil
}

// del calls DEL of the chain, the last plugin first. All of them are called;
// the first error counts.
func (t *try) del(b *box, env ...string) error {
	var first error
	for i := len(b.net.plugins) - 1; i >= 0; i-- {
		if err := t.call(b.net, i, "DEL", b, prevResult(b.prev), env...).ok(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// check calls CHECK of the chain until one fails.
func (t *try) check(b *box) error {
	for i := range b.net.plugins {
		if err := t.call(b.net, i, "CHECK", b, prevResult(b.prev)).ok(); err != nil {
			return err
		}
	}
	return nil
}

// status calls STATUS of the chain until one fails.
func (t *try) status(n network) error {
	for i := range n.plugins {
		if err := t.call(n, i, "STATUS", nil, nil).ok(); err != nil {
			return err
		}
	}
	return nil
}

const (
	validKey  = "cni.dev/valid-attachments"
	legacyKey = "cni.dev/attachments"
)

// attachments is the value of the keys above.
func attachments(valid ...*box) []conf {
	list := []conf{}
	for _, b := range valid {
		list = append(list, conf{"containerID": b.id, "ifname": b.ifname})
	}
	return list
}

// gc calls GC of the chain, as libcni does: all of it, with both keys.
func (t *try) gc(n network, valid ...*box) error {
	return t.gcWith(n, conf{validKey: attachments(valid...), legacyKey: attachments(valid...)})
}

func (t *try) gcWith(n network, more conf) error {
	var first error
	for i := range n.plugins {
		if err := t.call(n, i, "GC", nil, more).ok(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
