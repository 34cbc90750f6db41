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

// defaultTimeout bounds requests to the kernel where the context has no deadline.
const defaultTimeout = 10 * time.Second

// A Backend is the state.Backend of state.Masquerade and state.Forward for one
// network, in the network namespace of the calling thread. It keeps nothing open
// between calls.
type Backend struct {
	network string
	// routes: it is for route-sync's Forwards only, not for masquerade or others.
	routes bool
}

// NewBackend returns the backend of a network's masquerade and of its Forwards
// that are not route-sync's.
func NewBackend(network string) *Backend { return &Backend{network: network} }

// NewRoutesBackend returns the backend of a network's Forwards that are
// route-sync's.
func NewRoutesBackend(network string) *Backend { return &Backend{network: network, routes: true} }

// Observe implements state.Backend. It returns the network's masquerade, wanted or
// not. A table that was changed by hand is returned as an object with the
// masquerade's ID that describes the change.
//
// A wanted Forward is returned if no chain of the host drops its packets, if its
// rules are in front of every rule that does, or if the drop is an administrator's,
// which stays. Otherwise an object with its ID is returned that names the rule. A
// rule of ours that belongs to no wanted Forward is an object of its own.
//
// The error wraps ErrUnsupported where a masquerade is wanted and the kernel has no
// nf_tables, and os.ErrPermission without CAP_NET_ADMIN.
func (b *Backend) Observe(ctx context.Context, want state.Set) (state.Set, error) {
	var surveys []survey
	masquerade, err := confirmed(func() (masquerade state.Object, err error) {
		masquerade, surveys, err = b.look(ctx, want)
		return masquerade, err
	})
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

// look reads the packet filter: the network's masquerade, nil if there is none, and
// for want a survey of the chains at the hook forward. A missing nf_tables, or
// iptables program, is an error only where want needs it.
func (b *Backend) look(ctx context.Context, want state.Set) (masquerade state.Object, surveys []survey, err error) {
	old := newRuleset(nil)
	bases, failed := old.legacyBaseChains(ctx, "filter", "FORWARD")
	if errors.Is(failed, errNoProgram) && !wants(want, state.KindForward) {
		failed = nil // nothing of ours can be there without the program
	}
	if failed == nil {
		s, err := b.survey(old, bases, want)
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
		bases, err := rules.baseChains(unix.NF_INET_FORWARD, func(chain) bool { return true })
		if err == nil {
			now, err = b.survey(rules, bases, want)
		}
		return err
	})
	switch {
	case err == nil:
		surveys = append(surveys, now)
	case errors.Is(err, ErrUnsupported) && !wants(want, state.KindMasquerade):
		err = nil // nothing of ours can be there without nf_tables
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
// transaction: packets meet the old one or the new one. The accept rules of a Forward
// go in front of the rule that drops its packets, and behind all rules that drop
// others: into DOCKER-USER, behind its rules, if the drop is behind that chain;
// otherwise directly in front of the rule, or at the end of the chain if its policy
// drops. The error is as of Observe.
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

// concerned reports whether a change is for this backend: the two backends of one
// network may both be given the changes of both.
func (b *Backend) concerned(c state.Change) bool {
	if f, ok := c.New.(state.Forward); ok {
		return f.Network == b.network && f.Routes == b.routes
	}
	s, ok := c.Old.(unwantedRule)
	return ok && s.mark == comment(b.network, b.routes)
}
