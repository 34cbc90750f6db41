package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ovs-gre-cni/pkg/conflist"
)

// patience bounds what up and down do for one network. Thousands of tunnels
// take ovs-vswitchd a while.
const patience = time.Minute

// up makes the host state of the networks and keeps it, whatever containers
// come and go. Where nothing is amiss it changes nothing.
func up(ctx context.Context, c *call) int {
	files, code := c.networks()
	deeds := []deed{}
	for _, f := range files {
		if err := raise(ctx, log{c, f.Name(), &deeds}, f); err != nil {
			code = max(code, c.fail(fmt.Errorf("network %s: %w", f.Name(), err)))
		}
	}
	if c.json {
		code = max(code, c.print(deeds))
	}
	return code
}

func raise(ctx context.Context, l log, f conflist.File) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := conflist.Up(ctx, f, l.done)
	if errors.Is(err, conflist.ErrNoRoutesYet) {
		fmt.Fprintf(l.err, "ovs-grectl: network %s: %s\n", f.Name(), oneLine(err.Error()))
		return nil
	}
	return err
}
