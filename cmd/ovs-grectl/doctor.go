package main

import (
	"context"
	"fmt"
	"slices"

	"ovs-gre-cni/pkg/doctor"
)

// examine checks the surroundings of the networks. Files that do not parse are findings,
// too.
func examine(ctx context.Context, c *call) int {
	files, err := c.load()
	if err != nil {
		return c.fail(err)
	}
	c.progress.begin("looking at this host and its peers")
	findings := doctor.Examine(ctx, files)
	c.progress.end()
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
	c.findings(findings)
	return code
}

// levels are the words for the levels of findings, the worst first.
var levels = []struct {
	doctor.Level
	word, sgr string
}{{doctor.Fail, "FAIL", red}, {doctor.Warn, "warn", yellow}, {doctor.OK, "ok", green}}

// findings prints the findings, the worst first. Those without a problem are counted, with
// --verbose listed.
func (c *call) findings(list []doctor.Finding) {
	fine := 0
	for _, l := range levels {
		for _, f := range list {
			if f.Level != l.Level {
				continue
			}
			if f.Level == doctor.OK {
				if fine++; !c.verbose {
					continue
				}
			}
			what := f.Check
			if f.Network != "" {
				what += " (" + f.Network + ")"
			}
			fmt.Fprintf(c.out, "%s  %s: %s\n", c.colour(l.sgr, fmt.Sprintf("%-4s", l.word)), what, f.Seen)
			if f.Command != "" {
				fmt.Fprintf(c.out, "      %s\n", oneLine(f.Command))
			}
		}
	}
	switch bad := slices.ContainsFunc(list, func(f doctor.Finding) bool { return f.Level != doctor.OK }); {
	case c.verbose:
	case bad:
		fmt.Fprintf(c.out, "%d other checks are fine (-v lists them)\n", fine)
	default:
		fmt.Fprintf(c.out, "%s: %d checks (-v lists them)\n", c.colour(green, "all is fine"), fine)
	}
}
