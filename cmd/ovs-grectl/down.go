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
		return code // nothing is removed if one of the files is wrong
	}
	return c.change(ctx, files, code, "removing network", func(ctx context.Context, l log, f conflist.File) error {
		err := conflist.Down(ctx, f, c.force, l.report)
		if errors.Is(err, conflist.ErrAttached) {
			err = fmt.Errorf("%w (--force removes the host state all the same)", err)
		}
		return err
	})
}
