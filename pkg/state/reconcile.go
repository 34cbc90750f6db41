package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"ovs-gre-cni/pkg/fault"
)

// A Backend is one place where state lives: OVSDB, the kernel, nftables.
type Backend interface {
	// Observe reads what the network owns of this backend's kinds, and
	// whatever else has the ID of an object in want: as it is where the
	// object may be shared (sysctls, links, addresses), as state.Foreign
	// where it may not. Of what others own and nobody wants, it says nothing.
	// It changes nothing.
	Observe(ctx context.Context, want Set) (Set, error)
	// Apply makes the changes that are of its kinds and ignores the rest. It
	// goes on after an error and returns all of them. Applying the same
	// changes twice is fine.
	Apply(ctx context.Context, changes []Change) error
}

// Check returns the changes that would make the host match want. It changes
// nothing. The backends look at the same time: one of them waits for OVSDB.
func Check(ctx context.Context, want Set, backends ...Backend) ([]Change, error) {
	seen := make([]Set, len(backends))
	errs := make([]error, len(backends))
	var all sync.WaitGroup
	for i, b := range backends[min(1, len(backends)):] {
		all.Go(func() { seen[i+1], errs[i+1] = b.Observe(ctx, want) })
	}
	if len(backends) > 0 {
		// The first, and the only one of most callers, needs no goroutine.
		seen[0], errs[0] = backends[0].Observe(ctx, want)
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	have := Set{}
	for _, s := range seen {
		for _, o := range s {
			have.Put(o)
		}
	}
	return Diff(want, have), nil
}

// CreateAndUpdate creates and updates what want asks for and returns the changes it
// meant to make. It never deletes. Where something foreign is in the way it
// changes nothing, and the error wraps ErrForeign and shows both sides. After
// a backend that failed, those behind it, which depend on it, are left alone.
func CreateAndUpdate(ctx context.Context, want Set, backends ...Backend) ([]Change, error) {
	changes, err := Check(ctx, want, backends...)
	if err != nil {
		return nil, err
	}
	return apply(ctx, creationsAndUpdates(changes), backends)
}

// Reconcile makes the changes that Check returned for want: creations and
// updates as CreateAndUpdate does, and then, unless there was nothing to delete, Prune.
// It returns the changes it meant to make.
func Reconcile(ctx context.Context, want Set, changes []Change, backends ...Backend) ([]Change, error) {
	todo := creationsAndUpdates(changes)
	made, err := apply(ctx, todo, backends)
	if err != nil || len(todo) == len(changes) {
		return made, err
	}
	pruned, err := Prune(ctx, want, backends...)
	return append(made, pruned...), err
}

// CheckForeign is nil unless changes want to be made where something foreign is.
// The error wraps ErrForeign and shows both sides of each.
func CheckForeign(changes []Change) error {
	var errs []error
	for _, c := range changes {
		if f, ok := c.Old.(Foreign); ok {
			errs = append(errs, fmt.Errorf("%s is in the way: %w: there is %s", c.New.Noun(), fault.ErrForeign, f.Have))
		}
	}
	return errors.Join(errs...)
}

// creationsAndUpdates are those of changes that delete nothing.
func creationsAndUpdates(changes []Change) []Change {
	var list []Change
	for _, c := range changes {
		if c.New != nil {
			list = append(list, c)
		}
	}
	return list
}

// apply makes changes that delete nothing, unless something foreign is in the
// way of one.
func apply(ctx context.Context, todo []Change, backends []Backend) ([]Change, error) {
	if err := CheckForeign(todo); err != nil || len(todo) == 0 {
		return nil, err
	}
	for _, b := range backends {
		if err := b.Apply(ctx, todo); err != nil {
			return todo, err
		}
	}
	return todo, nil
}

// Prune deletes what the network owns and want does not ask for, in the last
// backend first, and returns the changes it meant to make. It goes on after a
// backend that failed.
func Prune(ctx context.Context, want Set, backends ...Backend) ([]Change, error) {
	changes, err := Check(ctx, want, backends...)
	if err != nil {
		return nil, err
	}
	todo := changes[:0]
	for _, c := range changes {
		if c.New == nil {
			todo = append(todo, c)
		}
	}
	if len(todo) == 0 {
		return nil, nil
	}
	var errs []error
	for _, b := range slices.Backward(backends) {
		errs = append(errs, b.Apply(ctx, todo))
	}
	return todo, errors.Join(errs...)
}
