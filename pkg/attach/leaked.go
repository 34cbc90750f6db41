package attach

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/rundir"
)

// A HeldAddress is an address that host-local has given out.
type HeldAddress struct {
	IP netip.Addr
	// Attachment has it; IfName may be "".
	config.Attachment
	// Since is when it was given.
	Since time.Time
	// Path is host-local's file.
	Path string
}

// LeakedAddresses lists the addresses that host-local holds for containers that have no
// link, although none is being made. It is nil where the network has another
// IPAM. It changes nothing.
func LeakedAddresses(ctx context.Context, c *config.Network) ([]HeldAddress, error) {
	if c.IPAM.Type != hostLocalType {
		return nil, nil
	}
	h := hostLocal{Request: Request{Config: c}}
	all, err := h.held()
	if err != nil {
		return nil, err
	}
	live, err := LiveAttachments(ctx, c.Name)
	if err != nil {
		return nil, err
	}
	valid, err := h.leased(func(l rundir.Lease) bool { return l.Busy })
	if err != nil {
		return nil, err
	}
	for _, a := range live {
		valid.put(a)
	}
	return slices.DeleteFunc(all, valid.has), nil
}

// FreeLeakedAddresses frees the leaked addresses that were given out before a time, which
// is when this boot began: nobody else's container can have them any more.
func FreeLeakedAddresses(ctx context.Context, c *config.Network, before time.Time) ([]HeldAddress, error) {
	leaked, err := LeakedAddresses(ctx, c)
	leaked = slices.DeleteFunc(leaked, func(a HeldAddress) bool { return !a.Since.Before(before) })
	if err != nil || len(leaked) == 0 {
		return nil, err
	}
	return leaked, hostLocal{Request: Request{Config: c}}.free(ctx, leaked)
}

// attachmentSet is a set of them. One without IfName stands for all of its container.
type attachmentSet map[config.Attachment]bool

func (s attachmentSet) put(a config.Attachment) {
	s[a], s[config.Attachment{ContainerID: a.ContainerID}] = true, true
}

func (s attachmentSet) has(h HeldAddress) bool { return s[h.Attachment] }

// leased are the attachments that have a lease which counts.
func (h hostLocal) leased(counts func(rundir.Lease) bool) (attachmentSet, error) {
	leases, err := h.dir().Leases(rundir.LeasesOVS)
	set := attachmentSet{}
	for _, l := range leases {
		if counts(l) {
			set.put(l.Attachment)
		}
	}
	return set, err
}

// held lists the addresses that are given out.
func (h hostLocal) held() ([]HeldAddress, error) {
	entries, err := os.ReadDir(h.dataDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []HeldAddress
	for _, e := range entries {
		if held, ok := h.read(e); ok {
			list = append(list, held)
		}
	}
	return list, nil
}
