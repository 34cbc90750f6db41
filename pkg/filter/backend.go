package filter

import (
	"context"
	"errors"
	"time"

	"ovs-gre-cni/pkg/state"
)

// ErrUnsupported is wrapped by errors about a kernel without nf_tables.
var ErrUnsupported = errors.New("this kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET): modprobe nf_tables")

// patience bounds a conversation with the kernel where the context does not.
const patience = 10 * time.Second

// A Backend is the packet filter's share of one network: the host.Backend of
// state.Masquerade and state.Forward. It holds nothing open between calls.
type Backend struct{ network string }

// NewBackend returns the backend of a network.
func NewBackend(network string) *Backend { return &Backend{network: network} }

// Observe implements host.Backend. It returns the network's masquerade,
// wanted or not; where somebody changed the table by hand so that it no longer
// is a masquerade of ours, an object with its ID that says how.
//
// A Forward that is wanted is there if no chain of the host drops forwarded
// packets by default, or if all that do accept its link. One that is not
// wanted is there as long as a rule of ours for it is.
//
// The error wraps ErrUnsupported where a masquerade is wanted of a kernel
// without nf_tables, and os.ErrPermission without CAP_NET_ADMIN.
func (b *Backend) Observe(ctx context.Context, want state.Set) (state.Set, error) {
	have := state.Set{}
	err := read(ctx, func(r *reader) error {
		clear(have)
		m, err := observeMasquerade(r, b.network)
		if m != nil {
			have.Put(m)
		}
		return err
	})
	if _, wanted := want[state.Masquerade{Network: b.network}.ID()]; errors.Is(err, ErrUnsupported) && !wanted {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return have, nil
}

// Apply implements host.Backend. A masquerade is replaced as a whole, in one
// transaction: packets meet the old one or the new one.
func (b *Backend) Apply(ctx context.Context, changes []state.Change) error {
	var errs []error
	for _, c := range changes {
		if c.Kind() == state.KindMasquerade {
			errs = append(errs, applyMasquerade(ctx, c))
		}
	}
	return errors.Join(errs...)
}
