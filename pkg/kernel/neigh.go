package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"ovs-gre-cni/pkg/state"

	"golang.org/x/sys/unix"
)

func neighHeader(family uint8, index int, nud uint16) []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = family
	ne.PutUint32(b[4:], uint32(index))
	ne.PutUint16(b[8:], nud)
	return b
}

// neighs lists the permanent neighbour entries of a link.
func (c *conn) neighs(ctx context.Context, dev string, index int) ([]state.Neigh, error) {
	bodies, err := c.dump(ctx, newMessage(unix.RTM_GETNEIGH, 0, neighHeader(0, 0, 0)).u32(unix.NDA_IFINDEX, index))
	if err != nil {
		return nil, fmt.Errorf("neighbours of %s: %w", dev, err)
	}
	var list []state.Neigh
	for _, b := range bodies {
		if len(b) < unix.SizeofNdMsg || getU32(b[4:]) != index || ne.Uint16(b[8:])&unix.NUD_PERMANENT == 0 {
			continue
		}
		n := state.Neigh{Dev: dev}
		for typ, v := range attrs(b[unix.SizeofNdMsg:]) {
			switch typ {
			case unix.NDA_DST:
				n.IP = getAddr(v)
			case unix.NDA_LLADDR:
				n.MAC = net.HardwareAddr(v).String()
			}
		}
		if n.IP.IsValid() {
			list = append(list, n)
		}
	}
	return list, nil
}

// observeNeighs adds the wanted entries and the network's. An entry that the
// kernel learned counts for nothing: it may be forgotten again.
func (b *Backend) observeNeighs(ctx context.Context, c *conn, want, have state.Set) error {
	devs := slices.Clone(b.scope.NeighLinks)
	for _, o := range want {
		if n, ok := o.(state.Neigh); ok {
			devs = append(devs, n.Dev)
		}
	}
	return c.eachLink(devs, func(dev string, index int) error {
		list, err := c.neighs(ctx, dev, index)
		for _, n := range list {
			if _, wanted := want[n.ID()]; wanted || slices.Contains(b.scope.NeighLinks, dev) {
				have.Put(n)
			}
		}
		return err
	})
}

func newNeigh(c *conn, n state.Neigh) (message, error) {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return nil, err
	}
	m, err := neighMessage(c, n.Dev, n.IP, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if err != nil {
		return nil, err
	}
	return m.attr(unix.NDA_LLADDR, mac), nil
}

// delNeigh is nil where the link is gone.
func delNeigh(c *conn, n state.Neigh) (message, error) {
	m, err := neighMessage(c, n.Dev, n.IP, unix.RTM_DELNEIGH, 0)
	if errors.As(err, new(noLink)) {
		return nil, nil
	}
	return m, err
}

func neighMessage(c *conn, dev string, ip netip.Addr, typ, flags uint16) (message, error) {
	index, err := c.index(dev)
	if err != nil {
		return nil, err
	}
	return newMessage(typ, flags, neighHeader(family(ip), index, unix.NUD_PERMANENT)).addr(unix.NDA_DST, ip), nil
}
