package kernel

import (
	"context"
	"fmt"
	"net/netip"
)

// VethPeer is the other end of a veth pair, in another namespace.
type VethPeer struct {
	// MAC in lower case with colons.
	MAC string
	// MTU in bytes.
	MTU int
	// Addrs are its addresses, without link-local ones.
	Addrs []netip.Addr
}

// VethPeerOf reads the other end of the veth pair whose host end is called name.
// The path of its namespace need not be known (IFLA_TARGET_NETNSID, Linux 5.0).
// The error wraps fs.ErrNotExist where there is no link called name.
func VethPeerOf(ctx context.Context, name string) (VethPeer, error) {
	return withConn(func(c *conn) (p VethPeer, err error) {
		near, err := c.find(ctx, name)
		if err != nil {
			return p, err
		}
		at := near.Attrs()
		if at.ParentIndex == 0 || at.NetNsID < 0 {
			return p, fmt.Errorf("link %s: its other end is in no namespace that is known here", name)
		}
		l, addrs, err := c.peer(ctx, at.NetNsID, at.ParentIndex)
		if err != nil {
			return p, fmt.Errorf("link %s: its other end: %w", name, err)
		}
		p.MAC, p.MTU = l.Attrs().HardwareAddr.String(), l.Attrs().MTU
		for _, a := range addrs {
			if !a.Prefix.Addr().IsLinkLocalUnicast() {
				p.Addrs = append(p.Addrs, a.Prefix.Addr())
			}
		}
		return p, nil
	})
}
