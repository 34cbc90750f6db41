package ipam

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"ovs-gre-cni/pkg/cni"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/rundir"
)

// delegate executes an IPAM plugin, with the environment and the whole
// configuration that we got. The package invoke of containernetworking/cni
// does the same and brings OpenTelemetry and net/http into the process, half
// a millisecond of every call.
type delegate struct{ Request }

func (d delegate) Add(ctx context.Context) (*current.Result, error) {
	out, err := d.exec(ctx, "ADD")
	if err != nil {
		return nil, err
	}
	_, res, err := cni.ReadResult("", out)
	if err == nil {
		return res, nil
	}
	return nil, fmt.Errorf("IPAM plugin %s: result: %w", d.Config.IPAM.Type, err)
}

func (d delegate) Del(ctx context.Context) error { return d.run(ctx, "DEL") }

func (d delegate) Check(ctx context.Context, _ []netip.Addr) error { return d.run(ctx, "CHECK") }

func (d delegate) Status(ctx context.Context) error { return d.run(ctx, "STATUS") }

// GC names all that is to stay: a plugin takes a list that is absent for one
// that is empty (containernetworking's host-local 1.10 does), and what the
// runtime lists lacks the attachments that an ADD is making now.
func (d delegate) GC(ctx context.Context, keep []config.Attachment) error {
	leases, err := d.dir().Leases(rundir.LeasesOVS)
	if err != nil {
		return err
	}
	valid := append([]config.Attachment{}, keep...)
	for _, l := range leases {
		if l.ContainerID != "" && !slices.Contains(valid, l.Attachment) {
			valid = append(valid, l.Attachment)
		}
	}
	var fields map[string]json.RawMessage
	list, err := json.Marshal(valid)
	if err == nil {
		err = json.Unmarshal(d.Config.Raw, &fields)
	}
	if err != nil {
		return err
	}
	fields["cni.dev/valid-attachments"], fields["cni.dev/attachments"] = list, list
	c := *d.Config
	if c.Raw, err = json.Marshal(fields); err != nil {
		return err
	}
	d.Config = &c
	return d.run(ctx, "GC")
}

func (d delegate) run(ctx context.Context, command string) error {
	_, err := d.exec(ctx, command)
	return err
}

func (d delegate) exec(ctx context.Context, command string) ([]byte, error) {
	path, err := d.find()
	if err != nil {
		return nil, err
	}
	var out output
	// It must not outlive us: an ADD that ends after the DEL which follows our
	// death would take an address for ever. The signal comes with the end of
	// the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, path)
	// What it has started ends with it where it takes too long: a child of a shell script
	// would keep our standard error, whose end the runtime waits for.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command)
	if d.ContainerID != "" {
		// GC runs DEL for attachments that the environment does not name.
		cmd.Env = append(cmd.Env, "CNI_CONTAINERID="+d.ContainerID, "CNI_IFNAME="+d.IfName, "CNI_NETNS="+d.Netns)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(d.Config.Raw), &out, os.Stderr
	if err := cmd.Run(); err != nil {
		switch {
		case out.full:
			err = errOutput // not the signal that ended it
		case ctx.Err() != nil:
			err = fmt.Errorf("%w: it gave no answer in time", nodes.ErrNotReady)
		}
		return nil, d.failure(command, err, out.text)
	}
	return out.text, nil
}

// maxOutput is the most bytes that an IPAM plugin may print. It is a choice: thousands
// of routes fit.
const maxOutput = 4 << 20

var errOutput = fmt.Errorf("it printed more than %d MB", maxOutput>>20)

// output is what a plugin prints, up to maxOutput; full: there was more.
type output struct {
	text []byte
	full bool
}

func (o *output) Write(p []byte) (int, error) {
	if o.full = o.full || len(o.text)+len(p) > maxOutput; o.full {
		return 0, errOutput
	}
	o.text = append(o.text, p...)
	return len(p), nil
}

// failure is what the plugin said, or why it could not run. A CNI error keeps
// its code: errors.As finds the *types.Error.
func (d delegate) failure(command string, err error, out []byte) error {
	said := &types.Error{}
	if json.Unmarshal(out, said) == nil && said.Msg != "" {
		return fmt.Errorf("IPAM plugin %s: %s: %w", d.Config.IPAM.Type, command, said)
	}
	return fmt.Errorf("IPAM plugin %s: %s: %w", d.Config.IPAM.Type, command, err)
}

// find looks for the plugin in the directories of CNI_PATH.
func (d delegate) find() (string, error) {
	if t := d.Config.IPAM.Type; t != filepath.Base(t) || t == "." || t == ".." {
		return "", fmt.Errorf("%w: ipam.type %q: want the name of a plugin, not a path", config.ErrInvalid, t)
	}
	dirs := filepath.SplitList(os.Getenv("CNI_PATH"))
	for _, dir := range dirs {
		path := filepath.Join(dir, d.Config.IPAM.Type)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", errors.Join(fmt.Errorf("ipam.type %q: %w: no such plugin in CNI_PATH %q", d.Config.IPAM.Type, nodes.ErrNotReady, dirs))
}
