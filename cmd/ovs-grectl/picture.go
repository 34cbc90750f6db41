package main

import (
	"context"
	"errors"

	"ovs-gre-cni/pkg/page"
)

// errWhich is the error about a call with no network, or several.
var errWhich = errors.New("picture draws one network: name its conflist")

// picture probes all peers for a second and prints the mesh as SVG.
func picture(ctx context.Context, c *call) int {
	files, code := c.networks()
	if len(files) != 1 {
		return max(code, c.fail(errWhich))
	}
	m, err := page.Measure(ctx, files[0])
	if err == nil {
		err = m.WriteSVG(c.out)
	}
	if err != nil {
		return c.fail(err)
	}
	return code
}
