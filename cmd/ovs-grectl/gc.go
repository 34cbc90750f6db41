package main

import (
	"context"
	"fmt"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/routes"
)

// gc does GC for runtimes that never call it. An attachment counts as valid as
// long as its veth pair is there, that is, as long as its namespace exists.
func gc(ctx context.Context, c *call) int {
	files, code := c.networks()
	changes := []change{}
	for _, f := range files {
		if f.OVS == nil {
			// Whose veth pairs they are does not show: the runtime must call GC.
			fmt.Fprintf(c.err, "ovs-grectl: network %s: nothing to go by: the containers are another plugin's\n", f.Name())
			continue
		}
		c.progress.begin("looking for what is left in network " + f.Name())
		if err := collect(ctx, log{c, f.Name(), &changes}, f); err != nil {
			code = max(code, c.fail(fmt.Errorf("network %s: %w", f.Name(), err)))
		}
	}
	return c.told(code, changes)
}

func collect(ctx context.Context, l log, f conflist.File) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// A live container without its lease would not be counted.
	if _, err := attach.RestoreLeases(ctx, f.Name()); err != nil {
		return err
	}
	swept, err := attach.Sweep(ctx, f.OVS)
	for _, a := range swept.Attachments {
		l.did("- container %s %s", a.ContainerID, a.IfName)
	}
	for _, a := range swept.Addresses {
		l.did("- rm %s  # container %s %s", a.Path, a.ContainerID, a.IfName)
	}
	if err != nil || f.Routes == nil {
		return err
	}
	return routes.Sweep(ctx, f.Routes, network.LiveAttachments)
}
