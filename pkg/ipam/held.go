package ipam

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

// A Held is an address that host-local has given out.
type Held struct {
	IP netip.Addr
	// Attachment has it; IfName may be "".
	config.Attachment
	// Since is when it was given.
	Since time.Time
	// Path is host-local's file.
	Path string
}

// Leaked lists the addresses that host-local holds for containers that are not
// among live, although no ADD is making them. It is nil where the network has
// another IPAM plugin. It changes nothing. live is called after the addresses are
// listed: an ADD that ends in between is among it.
func Leaked(c *config.Network, live func() (map[string]config.Attachment, error)) ([]Held, error) {
	if c.IPAM.Type != HostLocal {
		return nil, nil
	}
	h := hostLocal{Request: Request{Config: c}}
	all, err := h.held()
	if err != nil {
		return nil, err
	}
	attached, err := live()
	if err != nil {
		return nil, err
	}
	valid, err := h.leased(func(l rundir.Lease) bool { return l.Busy })
	if err != nil {
		return nil, err
	}
	for _, a := range attached {
		valid.put(a)
	}
	return slices.DeleteFunc(all, valid.has), nil
}

// Free gives host-local's addresses back, if the same containers still have them.
func Free(ctx context.Context, c *config.Network, list []Held) error {
	return hostLocal{Request: Request{Config: c}}.free(ctx, list)
}

// attachmentSet is a set of them. One without IfName stands for all of its container.
type attachmentSet map[config.Attachment]bool

func (s attachmentSet) put(a config.Attachment) {
	s[a], s[config.Attachment{ContainerID: a.ContainerID}] = true, true
}

func (s attachmentSet) has(h Held) bool { return s[h.Attachment] }

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
func (h hostLocal) held() ([]Held, error) {
	entries, err := os.ReadDir(h.dataDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Held
	for _, e := range entries {
		if held, ok := h.read(e); ok {
			list = append(list, held)
		}
	}
	return list, nil
}
