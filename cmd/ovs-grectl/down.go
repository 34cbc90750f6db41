package main

import (
	"context"
	"errors"
	"fmt"

	"ovs-gre-cni/pkg/conflist"
)

// down removes the host state of the networks, and the mark that keeps it.
func down(ctx context.Context, c *call) int {
	files, code := c.networks()
	if code != exitFine {
		return code // half of what was meant is nobody's wish
	}
	changes := []change{}
	for _, f := range files {
		c.progress.begin("removing network " + f.Name())
		if err := lower(ctx, log{c, f.Name(), &changes}, f); err != nil {
			code = max(code, c.fail(fmt.Errorf("network %s: %w", f.Name(), err)))
		}
	}
	return c.told(code, changes)
}

func lower(ctx context.Context, l log, f conflist.File) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := conflist.Down(ctx, f, l.force, l.done)
	if errors.Is(err, conflist.ErrAttached) {
		err = fmt.Errorf("%w (--force removes the host state all the same)", err)
	}
	return err
}
