package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/fault"
)

// load loads the conflists that the call names, or else all of this host.
func (c *call) load() ([]conflist.File, error) {
	if len(c.files) == 0 {
		return conflist.LoadDir(conflist.ConfDir)
	}
	var files []conflist.File
	for _, path := range c.files {
		files = append(files, conflist.Load(path))
	}
	return files, nil
}

// networks are the conflists of the call. It prints the errors of files that are wrong
// and leaves these out; code is exitUnable then. It also prints and leaves out files that
// runtimes ignore.
func (c *call) networks() (list []conflist.File, code int) {
	files, err := c.load()
	if err != nil {
		return nil, c.fail(err)
	}
	for _, f := range files {
		if why := f.Superseded(); why != "" {
			fmt.Fprintln(c.err, "ovs-grectl:", oneLine(why))
			continue
		}
		if f.Err != nil {
			code = c.fail(f.Err)
			continue
		}
		list = append(list, f)
	}
	if len(files) == 0 {
		fmt.Fprintf(c.err, "ovs-grectl: no conflist in %s names ovs-gre or route-sync\n", conflist.ConfDir)
	}
	return list, code
}

// fail prints an error, with a line for each joined one, and returns the exit status.
func (c *call) fail(err error) int {
	c.progress.clear()
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(c.err, "ovs-grectl:", oneLine(line))
	}
	if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
		fmt.Fprintln(c.err, "ovs-grectl: this is root's: sudo ovs-grectl ...")
	}
	if errors.Is(err, fault.ErrForeign) || errors.Is(err, fault.ErrRefused) || errors.Is(err, fault.ErrDrift) {
		return exitDrift
	}
	return exitUnable
}

// oneLine removes control characters from a text.
func oneLine(s string) string { return config.Printable(strings.TrimSpace(s)) }

// A change is a change of the host, as --output json prints it.
type change struct {
	Network string `json:"network"`
	// Change is the command it stands for, behind a sign: + made, - removed, ~ changed.
	Change string `json:"change"`
}

// A log collects the changes of one network; as text they are printed at once.
type log struct {
	*call
	network string
	changes *[]change
}

// networkTimeout bounds what up, down and gc do for one network. ovs-vswitchd may need
// long to make thousands of tunnels.
const networkTimeout = time.Minute

// change calls f for each network and prints the changes that it reports. doing is the
// text of the progress, before the network's name.
func (c *call) change(ctx context.Context, files []conflist.File, code int, doing string,
	f func(context.Context, log, conflist.File) error) int {
	changes := []change{}
	for _, file := range files {
		c.progress.begin(doing + " " + file.Name())
		ctx, cancel := context.WithTimeout(ctx, networkTimeout)
		if err := f(ctx, log{c, file.Name(), &changes}, file); err != nil {
			code = max(code, c.fail(fmt.Errorf("network %s: %w", file.Name(), err)))
		}
		cancel()
	}
	c.progress.end()
	if c.json {
		return max(code, c.print(changes))
	}
	if len(changes) == 0 && code == exitFine && c.outTerm {
		fmt.Fprintln(c.out, "nothing to do")
	}
	return code
}

// report adds a change. It is a conflist.Report.
func (l log) report(text string) {
	d := change{l.network, oneLine(text)}
	*l.changes = append(*l.changes, d)
	if !l.json {
		l.progress.clear()
		fmt.Fprintln(l.out, d.Change)
	}
}

// note prints a text about the network that is no error.
func (l log) note(text string) {
	l.progress.clear()
	fmt.Fprintf(l.err, "ovs-grectl: network %s: %s\n", l.network, oneLine(text))
}
