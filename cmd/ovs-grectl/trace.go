package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/trace"
)

// traceCall follows a packet through this host.
func traceCall(ctx context.Context, c *call) int {
	args := append(slices.Clone(c.files), "", "")
	q, err := trace.Parse(args[0], args[1], args[2], args[3])
	if err != nil {
		return c.fail(err)
	}
	c.files = nil
	files, code := c.networks()
	if len(files) == 0 {
		return max(code, exitUnable)
	}
	c.progress.begin("following the packet")
	t, err := trace.Follow(ctx, files, q, func(what string) { c.progress.step("following the packet: %s", what) })
	c.progress.end()
	if err != nil {
		return c.fail(err)
	}
	if !t.Arrives {
		code = exitDrift
	}
	if c.json {
		return max(code, c.print(t))
	}
	c.traced(c.out, t)
	return code
}

// traced prints a trace for a person.
func (c *call) traced(w io.Writer, t trace.Trace) {
	what := t.Protocol
	if t.Port != 0 {
		what += fmt.Sprintf(" port %d", t.Port)
	}
	fmt.Fprintf(w, "%s  %s to %s, %s\n", c.colour(bold, "network "+t.Network), t.From, t.To, what)
	steps := table{indent: "  "}
	for _, s := range t.Steps {
		mark := "ok"
		if !s.Passes {
			mark = "STOP"
		}
		steps.add(mark, s.Step, oneLine(s.Seen))
	}
	steps.paint = func(row, column int) string {
		switch {
		case column > 0:
			return ""
		case t.Steps[row].Passes:
			return green
		}
		return red
	}
	steps.print(c, w)
	switch last := t.Last(); {
	case t.Arrives && t.Peer != "" && last.Step != trace.StepTarget:
		fmt.Fprintf(w, "%s at %s, as far as can be seen from here\n", c.colour(green, "arrives"), oneLine(t.Peer))
	case t.Arrives:
		fmt.Fprintln(w, c.colour(green, "arrives"))
	default:
		fmt.Fprintf(w, "%s at step %s\n", c.colour(red, "stopped"), t.Stopped)
		if last.Command != "" {
			fmt.Fprintf(w, "  %s\n", oneLine(last.Command))
		}
	}
	if t.Next != "" && !strings.Contains(t.Last().Command, t.Next) {
		fmt.Fprintf(w, "on %s: %s\n", oneLine(t.Peer), t.Next)
	}
}

// containerNames are the IDs of the containers of this host, for completion.
func containerNames(prefix string) []string {
	files, _ := conflist.LoadDir(conflist.ConfDir)
	var names []string
	for _, f := range files {
		live, _ := network.LiveAttachments(context.Background(), f.Name())
		for _, port := range slices.Sorted(maps.Keys(live)) {
			if id := live[port].ContainerID; strings.HasPrefix(id, prefix) {
				names = append(names, id)
			}
		}
	}
	return names
}
