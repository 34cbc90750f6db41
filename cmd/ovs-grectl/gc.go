package main

import (
	"context"
	"fmt"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/routes"
)

// gc does GC for runtimes that never call it. An attachment is valid as long as its
// veth pair exists, and so the container's namespace.
func gc(ctx context.Context, c *call) int {
	files, code := c.networks()
	return c.change(ctx, files, code, "looking for what is left in network", collect)
}

func collect(ctx context.Context, l log, f conflist.File) error {
	if f.OVS == nil {
		// The links do not tell whose they are: the runtime must call GC.
		l.note("nothing to go by: the containers are another plugin's")
		return nil
	}
	// A live container counts only with a lease.
	if _, err := attach.RestoreLeases(ctx, f.Name()); err != nil {
		return err
	}
	swept, err := attach.Sweep(ctx, f.OVS)
	for _, a := range swept.Attachments {
		l.report(fmt.Sprintf("- container %s %s", a.ContainerID, a.IfName))
	}
	for _, a := range swept.Addresses {
		l.report(fmt.Sprintf("- rm %s  # container %s %s", a.Path, a.ContainerID, a.IfName))
	}
	if err != nil || f.Routes == nil {
		return err
	}
	return routes.Sweep(ctx, f.Routes, network.LiveAttachments)
}
