package firewall

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// ErrUnsupported is wrapped by errors about a kernel without nf_tables.
var ErrUnsupported = errors.New("this kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET): modprobe nf_tables")

// patience bounds a conversation with the kernel where the context does not.
const patience = 10 * time.Second

// A Backend is the packet filter's share of one network: the state.Backend of
// state.Masquerade and state.Forward, in the network namespace of the thread
// that calls. It holds nothing open between calls.
type Backend struct {
	network string
	// routes: of the Forwards it has those of route-sync, and no masquerade.
	routes bool
}

// NewBackend returns the backend of a network's masquerade and of those
// Forwards that are not route-sync's.
func NewBackend(network string) *Backend { return &Backend{network: network} }

// NewRoutesBackend returns the backend of those Forwards of a network that are
// route-sync's.
func NewRoutesBackend(network string) *Backend { return &Backend{network: network, routes: true} }

// Observe implements state.Backend. It returns the network's masquerade,
// wanted or not; where somebody changed the table by hand so that it no longer
// is a masquerade of ours, an object with its ID that says how.
//
// A Forward that is wanted is there if no chain of the host would drop its
// packets, or if all that would have its rules in front; also where the drop
// is an administrator's own, which stays. Otherwise an object of its ID is
// there that names the rule. A rule of ours that no Forward of want stands for
// is an object of its own.
//
// The error wraps ErrUnsupported where a masquerade is wanted of a kernel
// without nf_tables, and os.ErrPermission without CAP_NET_ADMIN.
func (b *Backend) Observe(ctx context.Context, want state.Set) (state.Set, error) {
	masquerade, surveys, err := b.look(ctx, want)
	for range 3 {
		// The kernel lists no rules of a table that a transaction replaces by
		// another of its name, from when the new one holds until the old one
		// is gone (nf_tables_dump_rules). What is altered is so a moment later.
		if _, ok := masquerade.(altered); ok {
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // nothing announces the end of it
			masquerade, surveys, err = b.look(ctx, want)
		}
	}
	if err != nil {
		return nil, err
	}
	have := state.Set{}
	if masquerade != nil {
		have.Put(masquerade)
	}
	have.Put(b.objects(want, surveys...)...)
	return have, nil
}

// look reads the packet filter: the network's masquerade, nil if there is
// none, and what the chains at the hook forward have to say to want. That there
// is no nf_tables, or no iptables, is an error where something of want needs it.
func (b *Backend) look(ctx context.Context, want state.Set) (masquerade state.Object, surveys []survey, err error) {
	old := newRuleset(nil)
	gates, failed := old.legacyGates(ctx, "filter", "FORWARD")
	if errors.Is(failed, errNoProgram) && !wants(want, state.KindForward) {
		failed = nil // what we could not have written to holds nothing of ours
	}
	if failed == nil {
		s, err := b.survey(old, gates, want)
		if err != nil {
			return nil, nil, err
		}
		surveys = append(surveys, s)
	}
	var now survey
	err = read(ctx, func(r *reader) (err error) {
		if !b.routes {
			if masquerade, err = observeMasquerade(r, b.network); err != nil {
				return err
			}
		}
		rules := newRuleset(r)
		gates, err := rules.baseChains(unix.NF_INET_FORWARD, func(chain) bool { return true })
		if err == nil {
			now, err = b.survey(rules, gates, want)
		}
		return err
	})
	switch {
	case err == nil:
		surveys = append(surveys, now)
	case errors.Is(err, ErrUnsupported) && !wants(want, state.KindMasquerade):
		err = nil // nor does what is not there
	}
	return masquerade, surveys, errors.Join(failed, err)
}

func wants(want state.Set, kind state.Kind) bool {
	for id := range want {
		if id.Kind == kind {
			return true
		}
	}
	return false
}

// Apply implements state.Backend. A masquerade is replaced as a whole, in one
// transaction: packets meet the old one or the new one. The accepts of a
// Forward go in front of what drops its packets, behind everything that drops
// others: into DOCKER-USER, behind the rules that are there, where a drop
// stands behind it; otherwise in front of the rule that drops all, or at the
// end where the policy does. The error is as Observe's.
func (b *Backend) Apply(ctx context.Context, changes []state.Change) error {
	var errs []error
	var forwards []state.Change
	for _, c := range changes {
		switch c.Kind() {
		case state.KindMasquerade:
			if !b.routes {
				errs = append(errs, applyMasquerade(ctx, c))
			}
		case state.KindForward:
			if b.concerned(c) {
				forwards = append(forwards, c)
			}
		}
	}
	return errors.Join(append(errs, b.applyForwards(ctx, forwards))...)
}

// concerned reports whether a change is of this backend: two of one network
// may be asked for the changes of both.
func (b *Backend) concerned(c state.Change) bool {
	if f, ok := c.New.(state.Forward); ok {
		return f.Network == b.network && f.Routes == b.routes
	}
	s, ok := c.Old.(unwantedRule)
	return ok && s.mark == comment(b.network, b.routes)
}
