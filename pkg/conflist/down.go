package conflist

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/rundir"
)

// ErrAttached is wrapped by Down's error where containers are still attached. It
// wraps fault.ErrDrift.
var ErrAttached error = inUse{}

type inUse struct{}

func (inUse) Error() string { return "containers are attached" }
func (inUse) Unwrap() error { return fault.ErrDrift }

// Down removes the host state of a conflist's network, which is then no longer
// persistent. While containers are attached it removes nothing and returns an error that wraps
// ErrAttached, unless force is set. It is no error if there is no host state.
func Down(ctx context.Context, f File, force bool, report Report) error {
	users, err := attached(ctx, f)
	if err != nil {
		return err
	}
	if len(users) > 0 && !force {
		return fmt.Errorf("%w: %s", ErrAttached, describe(users))
	}
	var conn *ovs.Conn
	if f.OVS != nil {
		if conn, err = ovs.Dial(ctx, f.OVS.OVSDB); err != nil {
			return err
		}
		defer conn.Close()
	}
	// A container that is attached from now on keeps host state, unless force is set.
	if err := rundir.NetworkDir(f.Name()).SetPersistent(false); err != nil {
		return err
	}
	if f.Routes != nil {
		changes, err := routes.Remove(ctx, f.Routes, f.Bridge(), force)
		report.changes(changes)
		if err != nil {
			return err
		}
	}
	if f.OVS != nil {
		changes, err := network.Remove(ctx, f.OVS, conn, force)
		report.changes(changes)
		return err
	}
	return nil
}

// attached returns the attachments of a conflist's network by port name: those that
// have a lease, and those that have lost it but still have their link.
func attached(ctx context.Context, f File) (map[string]config.Attachment, error) {
	users, err := network.LiveAttachments(ctx, f.Name())
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{rundir.LeasesOVS, rundir.LeasesRoutes} {
		leases, err := rundir.NetworkDir(f.Name()).Leases(kind)
		if err != nil {
			return nil, err
		}
		for _, l := range leases {
			users[l.Name] = l.Attachment
		}
	}
	return users, nil
}

// describe names attachments, the first few of them.
func describe(users map[string]config.Attachment) string {
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
