package attach

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/ipam"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
)

// Swept has the attachments and addresses that Sweep has removed.
type Swept struct {
	Attachments []config.Attachment
	Addresses   []ipam.Held
}

// Sweep is GC for runtimes that never call it: it removes all attachments that have no
// veth pair. Attachments that an ADD is making stay. An IPAM plugin other than host-local
// is called by DEL for each removed attachment, not by GC with a list of valid ones,
// because an ADD could be missing in such a list.
func Sweep(ctx context.Context, c *config.Network) (Swept, error) {
	var s Swept
	conn, err := ovs.Dial(ctx, c.OVSDB)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	stale, _, err := leftovers(ctx, c, conn, nil)
	if err != nil {
		return s, err
	}
	live, err := network.LiveAttachments(ctx, c.Name) // last, so that it has attachments that an ADD has just made
	if err != nil {
		return s, err
	}
	leaked, err := LeakedAddresses(ctx, c)
	if err != nil {
		return s, err
	}
	var errs []error
	for name, a := range stale {
		_, gone := hostEnd(ctx, c.Name, name) // an ADD may have made it again
		if _, ok := live[name]; !ok && errors.Is(gone, fs.ErrNotExist) {
			s.Attachments = append(s.Attachments, a)
			errs = append(errs, collect(ctx, c, conn, name, a))
		}
	}
	slices.SortFunc(s.Attachments, func(a, b config.Attachment) int {
		return strings.Compare(a.ContainerID+" "+a.IfName, b.ContainerID+" "+b.IfName)
	})
	if len(leaked) > 0 {
		s.Addresses = leaked
		errs = append(errs, ipam.Free(ctx, c, leaked))
	}
	if err := errors.Join(errs...); err != nil {
		return s, err
	}
	return s, finish(ctx, c, conn)
}
