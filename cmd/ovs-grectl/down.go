package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/doctor"
	"ovs-gre-cni/pkg/host"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/spec"
)

// down removes the host state of the networks, and the mark that keeps it.
func down(ctx context.Context, c *call) int {
	files, code := c.networks()
	if code != exitFine {
		return code // half of what was meant is nobody's wish
	}
	deeds := []deed{}
	for _, f := range files {
		if err := lower(ctx, log{c, f.Name(), &deeds}, f); err != nil {
			code = max(code, c.fail(fmt.Errorf("network %s: %w", f.Name(), err)))
		}
	}
	if c.json {
		code = max(code, c.print(deeds))
	}
	return code
}

// errAttached says that containers would lose their network.
var errAttached = errors.New("containers are attached (--force removes the host state all the same)")

func lower(ctx context.Context, l log, f doctor.File) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dir := host.NetworkDir(f.Name())
	users, err := attached(ctx, f)
	if err != nil {
		return err
	}
	if len(users) > 0 && !l.force {
		return fmt.Errorf("%w: %w: %s", host.ErrDrift, errAttached, list(users))
	}
	var conn *ovs.Conn
	if f.OVS != nil {
		if conn, err = ovs.Dial(ctx, f.OVS.OVSDB); err != nil {
			return err
		}
		defer conn.Close()
	}
	// From here on a container that comes keeps what there is, unless forced.
	if err := dir.SetPersistent(false); err != nil {
		return err
	}
	if f.Routes != nil {
		changes, err := routes.Remove(ctx, f.Routes, bridge(f), l.force)
		l.changed(changes)
		if err != nil {
			return err
		}
	}
	if f.OVS != nil {
		changes, err := network.Remove(ctx, f.OVS, conn, l.force)
		l.changed(changes)
		return err
	}
	return nil
}

// attached are the attachments that keep the network: by their leases, or by
// their links where a lease is lost.
func attached(ctx context.Context, f doctor.File) (map[string]spec.Attachment, error) {
	users, err := attach.Live(ctx, f.Name())
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{host.LeasesOVS, host.LeasesRoutes} {
		leases, err := host.NetworkDir(f.Name()).Leases(kind)
		if err != nil {
			return nil, err
		}
		for _, l := range leases {
			users[l.Name] = l.Attachment
		}
	}
	return users, nil
}

// list names attachments, the first few of them.
func list(users map[string]spec.Attachment) string {
	const most = 20
	var names []string
	for _, port := range slices.Sorted(maps.Keys(users)) {
		names = append(names, fmt.Sprintf("%s %s (%s)", users[port].ContainerID, users[port].IfName, port))
	}
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(users)-most))
	}
	return strings.Join(names, ", ")
}
