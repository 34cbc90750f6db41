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
// state.Masquerade and state.Forward, in the network namespace of the thread
// that calls. It holds nothing open between calls.
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
	masquerade, gates, err := b.observe(ctx)
	for range 3 {
		// The kernel lists no rules of a table that a transaction replaces by
		// another of its name, from when the new one holds until the old one
		// is gone (nf_tables_dump_rules). What is altered is so a moment later.
		if _, ok := masquerade.(altered); ok {
			time.Sleep(20 * time.Millisecond)
			masquerade, gates, err = b.observe(ctx)
		}
	}
	if errors.Is(err, ErrUnsupported) && !wants(want, state.KindMasquerade) {
		err = nil // what is not there holds nothing of ours
	}
	if err != nil {
		return nil, err
	}
	old, err := legacyGates(ctx)
	if errors.Is(err, errNoProgram) && !wants(want, state.KindForward) {
		err = nil // nor does what we could not have written to
	}
	if err != nil {
		return nil, err
	}
	have := state.Set{}
	if masquerade != nil {
		have.Put(masquerade)
	}
	have.Put(observeForwards(append(gates, old...), b.network, want)...)
	return have, nil
}

// observe reads nf_tables: the network's masquerade, nil if there is none, and
// the gates.
func (b *Backend) observe(ctx context.Context) (masquerade state.Object, gates []gate, err error) {
	err = read(ctx, func(r *reader) (err error) {
		if masquerade, err = observeMasquerade(r, b.network); err != nil {
			return err
		}
		gates, err = nftGates(r)
		return err
	})
	return masquerade, gates, err
}

func wants(want state.Set, kind state.Kind) bool {
	for id := range want {
		if id.Kind == kind {
			return true
		}
	}
	return false
}

// Apply implements host.Backend. A masquerade is replaced as a whole, in one
// transaction: packets meet the old one or the new one. The accepts of a
// Forward go to the top of the chain that drops, or of DOCKER-USER if that
// leads there. The error is as Observe's.
func (b *Backend) Apply(ctx context.Context, changes []state.Change) error {
	var errs []error
	for _, c := range changes {
		switch c.Kind() {
		case state.KindMasquerade:
			errs = append(errs, applyMasquerade(ctx, c))
		case state.KindForward:
			errs = append(errs, applyForward(ctx, c))
		}
	}
	return errors.Join(errs...)
}
