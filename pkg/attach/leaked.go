package attach

import (
	"context"
	"slices"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/ipam"
	"ovs-gre-cni/pkg/network"
)

// LeakedAddresses lists the addresses that host-local holds for containers that
// have no link, although no ADD is making one. It is nil where the network has
// another IPAM plugin. It changes nothing.
func LeakedAddresses(ctx context.Context, c *config.Network) ([]ipam.Held, error) {
	return ipam.Leaked(c, func() (map[string]config.Attachment, error) { return network.LiveAttachments(ctx, c.Name) })
}

// FreeLeakedAddresses frees those of LeakedAddresses that were given out before a
// time, and returns them. Before this boot began, say: no container of then lives.
func FreeLeakedAddresses(ctx context.Context, c *config.Network, before time.Time) ([]ipam.Held, error) {
	leaked, err := LeakedAddresses(ctx, c)
	leaked = slices.DeleteFunc(leaked, func(a ipam.Held) bool { return !a.Since.Before(before) })
	if err != nil || len(leaked) == 0 {
		return nil, err
	}
	return leaked, ipam.Free(ctx, c, leaked)
}
