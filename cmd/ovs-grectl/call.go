package main

import (
	"encoding/json"
	"errors"
	"fmt"
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
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(c.err, "ovs-grectl:", oneLine(line))
	}
	if errors.Is(err, fault.ErrForeign) || errors.Is(err, fault.ErrRefused) || errors.Is(err, fault.ErrDrift) {
		return exitDrift
	}
	return exitUnable
}

// print prints a value as JSON.
func (c *call) print(v any) int {
	enc := json.NewEncoder(c.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return c.fail(err)
	}
	return exitFine
}

// oneLine keeps others' text from breaking a line or a terminal.
func oneLine(s string) string { return config.Printable(strings.TrimSpace(s)) }

// A deed is one thing that was done to the host, as --output json tells it.
type deed struct {
	Network string `json:"network"`
	// Change is the command it stands for, behind a sign: + made, - removed, ~ changed.
	Change string `json:"change"`
}

// A log gathers deeds; as text they are printed at once.
type log struct {
	*call
	network string
	deeds   *[]deed
}

func (l log) did(format string, args ...any) { l.done(fmt.Sprintf(format, args...)) }

// done is a conflist.Report.
func (l log) done(change string) {
	d := deed{l.network, oneLine(change)}
	*l.deeds = append(*l.deeds, d)
	if !l.json {
		fmt.Fprintln(l.out, d.Change)
	}
}
