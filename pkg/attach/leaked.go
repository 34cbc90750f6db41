package attach

import (
	"context"
	"slices"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/ipam"
	"ovs-gre-cni/pkg/network"
)

// LeakedAddresses lists the addresses that host-local has given to containers without a
// link, except for those that an ADD is making. It is nil where the network has another
// IPAM plugin. It changes nothing.
func LeakedAddresses(ctx context.Context, c *config.Network) ([]ipam.Held, error) {
	return ipam.Leaked(c, func() (map[string]config.Attachment, error) { return network.LiveAttachments(ctx, c.Name) })
}

// FreeLeakedAddresses frees the LeakedAddresses that were given before a time, such as
// the beginning of this boot, and returns them.
func FreeLeakedAddresses(ctx context.Context, c *config.Network, before time.Time) ([]ipam.Held, error) {
	leaked, err := LeakedAddresses(ctx, c)
	leaked = slices.DeleteFunc(leaked, func(a ipam.Held) bool { return !a.Since.Before(before) })
	if err != nil || len(leaked) == 0 {
		return nil, err
	}
	return leaked, ipam.Free(ctx, c, leaked)
}
