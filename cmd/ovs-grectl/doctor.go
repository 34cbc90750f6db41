package main

import (
	"context"
	"fmt"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/doctor"
)

// examine looks at what surrounds the networks. Files that do not parse are
// findings, too.
func examine(ctx context.Context, c *call) int {
	var files []conflist.File
	if len(c.files) == 0 {
		var err error
		if files, err = conflist.LoadDir(conflist.ConfDir); err != nil {
			return c.fail(err)
		}
	}
	for _, path := range c.files {
		files = append(files, conflist.Load(path))
	}
	findings := doctor.Examine(ctx, files)
	code := exitFine
	for i, f := range findings {
		findings[i].Seen = oneLine(f.Seen)
		if f.Level == doctor.Fail {
			code = exitDrift
		}
	}
	if c.json {
		return max(code, c.print(findings))
	}
	for _, f := range findings {
		what := f.Check
		if f.Network != "" {
			what += " (" + f.Network + ")"
		}
		level := string(f.Level)
		if f.Level == doctor.Fail {
			level = "FAIL"
		}
		fmt.Fprintf(c.out, "%-4s  %s: %s\n", level, what, f.Seen)
		if f.Command != "" {
			fmt.Fprintf(c.out, "      %s\n", oneLine(f.Command))
		}
	}
	return code
}
