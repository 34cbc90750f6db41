package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/nodes"
)

// A validation is the result of validate for a file.
type validation struct {
	File    string `json:"file"`
	Network string `json:"network,omitempty"`
	// Problems are all errors; none is a valid file.
	Problems []string `json:"problems"`
	// Notes are about checks that are not possible on this machine.
	Notes []string `json:"notes,omitempty"`
}

// validate checks files as the plugins would, without a host.
func validate(_ context.Context, c *call) int {
	code, list := exitFine, []validation{}
	for _, path := range c.files {
		v := check(conflist.Load(path))
		list = append(list, v)
		if len(v.Problems) > 0 {
			code = exitDrift
		}
	}
	if c.json {
		return max(code, c.print(list))
	}
	for _, v := range list {
		for _, p := range v.Problems {
			fmt.Fprintln(c.out, c.colour(red, "wrong")+"  "+p)
		}
		for _, n := range v.Notes {
			fmt.Fprintln(c.out, "note   "+v.File+": "+n)
		}
		if len(v.Problems) == 0 {
			fmt.Fprintln(c.out, c.colour(green, "sound")+"  "+v.File+": network "+oneLine(v.Network))
		}
	}
	return code
}

// check validates a file.
func check(f conflist.File) validation {
	v := validation{File: f.Path, Problems: []string{}}
	if f.List != nil {
		v.Network = f.List.Name
	}
	err := f.Err
	if base := f.Base(); err == nil && base.NodesFile != "" {
		_, err = nodes.Configured(base)
		if errors.Is(err, nodes.ErrNotReady) {
			v.Notes, err = []string{"the nodes were not checked: " + base.NodesFile + " is not here"}, nil
		}
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			v.Problems = append(v.Problems, oneLine(line))
		}
	}
	return v
}
