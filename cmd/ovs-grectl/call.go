package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/fault"
)

// networks are the files that the call is about. What is wrong with a file has
// been told, and makes code exitUnable; the others are still there. A file that
// runtimes do not take is told, and is not among them.
func (c *call) networks() (list []conflist.File, code int) {
	var files []conflist.File
	if len(c.files) == 0 {
		var err error
		if files, err = conflist.LoadDir(conflist.ConfDir); err != nil {
			return nil, c.fail(err)
		}
	}
	for _, path := range c.files {
		files = append(files, conflist.Load(path))
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

// fail tells an error, a line for each that is joined in it.
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

// oneLine keeps others' text from breaking a line or a terminal.
func oneLine(s string) string { return config.Printable(strings.TrimSpace(s)) }

// A change is one thing that was done to the host, as --output json tells it.
type change struct {
	Network string `json:"network"`
	// Change is the command it stands for, behind a sign: + made, - removed, ~ changed.
	Change string `json:"change"`
}

// A log gathers changes; as text they are printed at once.
type log struct {
	*call
	network string
	changes *[]change
}

// told ends what up, down and gc print: the changes as JSON or, for a person who
// would see nothing, that there was nothing to do.
func (c *call) told(code int, changes []change) int {
	c.progress.end()
	if c.json {
		return max(code, c.print(changes))
	}
	if len(changes) == 0 && code == exitFine && c.outTerm {
		fmt.Fprintln(c.out, "nothing to do")
	}
	return code
}

func (l log) did(format string, args ...any) { l.done(fmt.Sprintf(format, args...)) }

// done is a conflist.Report.
func (l log) done(text string) {
	d := change{l.network, oneLine(text)}
	*l.changes = append(*l.changes, d)
	if !l.json {
		l.progress.clear()
		fmt.Fprintln(l.out, d.Change)
	}
}
