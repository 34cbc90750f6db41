package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// insideArg makes this program the part that runs in a host: entering the
// host for each call would be measured too.
const insideArg = "-inside-host"

// keeper is the number of the container that stays.
const keeper = 1000

// A request is what the part inside is asked for: a chain to call from now on,
// a script to run, or a verb for a number of containers at once.
type request struct {
	Conflist []byte `json:",omitempty"`
	Path     string `json:",omitempty"`

	Shell string `json:",omitempty"`

	Verb   string `json:",omitempty"`
	First  int    `json:",omitempty"`
	Count  int    `json:",omitempty"`
	Memory bool   `json:",omitempty"`
}

// An answer has one call a container.
type answer struct {
	Calls []call
	// Daemons is the CPU time that ovsdb-server and ovs-vswitchd took for all
	// of them, until they were idle again; Vswitchd is ovs-vswitchd's alone.
	Daemons, Vswitchd time.Duration
	Error             string
}

// A call is one verb for one container: the plugins of a chain, one after the
// other, from fork to exit.
type call struct {
	Wall, CPU time.Duration
	MaxRSS    int64 // KiB, of the largest process; 0 where it was not asked for
	Error     string
}

// serve answers requests until there are no more.
func serve(in io.Reader, out io.Writer) error {
	i := inside{netns: map[int]bool{}}
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var q request
		if err := dec.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a, err := i.answer(q)
		if err != nil {
			a.Error = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

type inside struct {
	list  *libcni.NetworkConfigList
	path  string
	netns map[int]bool
}

func (i *inside) answer(q request) (a answer, err error) {
	switch {
	case q.Conflist != nil:
		i.path = q.Path
		i.list, err = libcni.ConfListFromBytes(q.Conflist)
		return a, err
	case q.Verb == "":
		return a, shell(q.Shell)
	}
	for n := q.First; n < q.First+q.Count; n++ {
		if !i.netns[n] {
			if err := shell("ip netns add " + name(n)); err != nil {
				return a, err
			}
			i.netns[n] = true
		}
	}
	before, switchBefore := idle(), daemons("ovs-vswitchd")
	a.Calls = make([]call, q.Count)
	var wg sync.WaitGroup
	for n := range a.Calls {
		wg.Go(func() { a.Calls[n] = i.call(q.Verb, q.First+n, q.Memory) })
	}
	wg.Wait()
	a.Daemons = idle() - before
	a.Vswitchd = daemons("ovs-vswitchd") - switchBefore
	return a, nil
}

func name(n int) string { return "bench" + strconv.Itoa(n) }

func shell(script string) error {
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, bytes.TrimSpace(out))
	}
	return nil
}

func (i *inside) call(verb string, n int, memory bool) call {
	var c call
	var e libcniExec = &timed{call: &c}
	if memory {
		e = &weighed{call: &c}
	}
	ctx := context.Background()
	rt := &libcni.RuntimeConf{ContainerID: name(n), NetNS: "/run/netns/" + name(n), IfName: "eth0"}
	// What libcni remembers of a container is on tmpfs and no part of the time.
	cni := libcni.NewCNIConfigWithCacheDir([]string{i.path, "/opt/cni/bin"}, "/run/libcni", e)
	var err error
	switch verb {
	case "ADD":
		_, err = cni.AddNetworkList(ctx, i.list, rt)
	case "CHECK":
		err = cni.CheckNetworkList(ctx, i.list, rt)
	case "DEL":
		err = cni.DelNetworkList(ctx, i.list, rt)
	}
	if err != nil {
		c.Error = verb + ": " + err.Error()
	}
	return c
}

// libcniExec is how libcni executes plugins.
type libcniExec interface {
	ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error)
	FindInPath(plugin string, paths []string) (string, error)
	Decode(raw []byte) (version.PluginInfo, error)
}

// finder is the part of libcniExec that is not about executing.
type finder struct{ version.PluginDecoder }

func (finder) FindInPath(plugin string, paths []string) (string, error) {
	for _, dir := range paths {
		if _, err := os.Stat(dir + "/" + plugin); err == nil {
			return dir + "/" + plugin, nil
		}
	}
	return "", fmt.Errorf("no %s in %v", plugin, paths)
}

// timed adds up what the processes of a call take.
type timed struct {
	finder
	call *call
}

func (t *timed) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, bytes.NewReader(stdin), &out, &errs
	start := time.Now()
	err := cmd.Run()
	t.call.Wall += time.Since(start)
	if s := cmd.ProcessState; s != nil {
		t.call.CPU += s.UserTime() + s.SystemTime() // with its children's, such as host-local's
	}
	return out.Bytes(), said(path, err, out.Bytes(), errs.Bytes())
}

// said is the error that a plugin printed.
func said(path string, err error, out, errs []byte) error {
	if err == nil {
		return nil
	}
	var e types.Error
	if json.Unmarshal(out, &e) == nil && e.Msg != "" {
		return fmt.Errorf("%s: %w", path, &e)
	}
	return fmt.Errorf("%s: %w: %s%s", path, err, out, errs)
}

// weighed notes the memory of the largest process of a call. The kernel counts
// what a process had before it became a plugin, so a small shell starts the
// plugin, and we inherit it (PR_SET_CHILD_SUBREAPER).
type weighed struct {
	finder
	call *call
}

func (w *weighed) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	var out, errs bytes.Buffer
	start := exec.CommandContext(ctx, "sh", "-c", `exec 3<&0; "$0" <&3 & echo $! >&2`, path)
	start.Env, start.Stdin, start.Stdout, start.Stderr = env, bytes.NewReader(stdin), &out, &errs
	if err := start.Run(); err != nil { // also waits for the end of the plugin's output
		return nil, err
	}
	pid, err := strconv.Atoi(strings.SplitN(errs.String(), "\n", 2)[0])
	if err != nil {
		return nil, err
	}
	var ws unix.WaitStatus
	var use unix.Rusage
	if _, err := unix.Wait4(pid, &ws, 0, &use); err != nil {
		return nil, err
	}
	w.call.MaxRSS = max(w.call.MaxRSS, use.Maxrss)
	if ws.ExitStatus() != 0 {
		err = fmt.Errorf("exit status %d", ws.ExitStatus())
	}
	return out.Bytes(), said(path, err, out.Bytes(), errs.Bytes())
}

// idle waits until the daemons of Open vSwitch do nothing more, or 2 s, and
// returns the CPU time that they have had. Without Open vSwitch it waits as
// long as for idle daemons.
func idle() time.Duration {
	both := []string{"ovsdb-server", "ovs-vswitchd"}
	had := daemons(both...)
	for range 2 * time.Second / settle {
		<-time.After(settle)
		now := daemons(both...)
		if now-had < settle/20 {
			return now
		}
		had = now
	}
	return had
}

// daemons is the CPU time of all threads of ovsdb-server or ovs-vswitchd.
// /proc/PID/stat has it in hundredths of a second, which is too coarse.
func daemons(names ...string) time.Duration {
	var sum time.Duration
	for _, name := range names {
		pid, err := os.ReadFile("/run/openvswitch/" + name + ".pid")
		if err != nil {
			continue
		}
		tasks := "/proc/" + strings.TrimSpace(string(pid)) + "/task/"
		entries, _ := os.ReadDir(tasks)
		for _, e := range entries {
			stat, _ := os.ReadFile(tasks + e.Name() + "/schedstat")
			var ns int64
			_, _ = fmt.Sscan(string(stat), &ns)
			sum += time.Duration(ns)
		}
	}
	return sum
}
