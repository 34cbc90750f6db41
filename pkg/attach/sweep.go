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

// Swept is what Sweep took away.
type Swept struct {
	Attachments []config.Attachment
	Addresses   []ipam.Held
}

// Sweep is GC for runtimes that never call it: every attachment without a veth
// pair goes, everything that has one stays. An ADD that comes meanwhile is let
// be, so an IPAM plugin other than host-local is asked to free what the
// attachments had, not to free all but what a list names.
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
	live, err := network.LiveAttachments(ctx, c.Name) // last: what an ADD has finished by now is there
	if err != nil {
		return s, err
	}
	leaked, err := LeakedAddresses(ctx, c)
	if err != nil {
		return s, err
	}
	var errs []error
	for name, a := range stale {
		_, gone := hostEnd(ctx, c.Name, name) // it may have come again by now
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
