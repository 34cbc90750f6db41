package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"ovs-gre-cni/pkg/fault"
)

// A Backend observes and changes host state of some kinds: of OVSDB, the kernel or
// nftables.
type Backend interface {
	// Observe returns the objects of the backend's kinds that belong to the
	// network, and those that have the ID of an object in want: as they are if
	// their kind may be shared (sysctls, links, addresses), else as Foreign. It
	// leaves out all other foreign objects. It changes nothing.
	Observe(ctx context.Context, want Set) (Set, error)
	// Apply makes the changes of the backend's kinds and ignores the others. It
	// goes on after an error and joins all errors. It may be called again with
	// the same changes.
	Apply(ctx context.Context, changes []Change) error
}

// Check returns the changes that would make the host match want. It changes
// nothing. The backends observe at the same time: one of them waits for OVSDB.
func Check(ctx context.Context, want Set, backends ...Backend) ([]Change, error) {
	seen := make([]Set, len(backends))
	errs := make([]error, len(backends))
	var all sync.WaitGroup
	for i, b := range backends[min(1, len(backends)):] {
		all.Go(func() { seen[i+1], errs[i+1] = b.Observe(ctx, want) })
	}
	if len(backends) > 0 {
		// Most callers have one backend, which needs no goroutine.
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

// CreateAndUpdate makes the creations and updates that want needs, no deletions, and
// returns the changes that it tried to make. It may be called again with the same
// want. Where a Foreign has the place of a wanted object it changes nothing; the error
// then wraps fault.ErrForeign and shows both. After the error of a backend it does not
// call the following ones, which depend on it.
func CreateAndUpdate(ctx context.Context, want Set, backends ...Backend) ([]Change, error) {
	changes, err := Check(ctx, want, backends...)
	if err != nil {
		return nil, err
	}
	return apply(ctx, creationsAndUpdates(changes), backends)
}

// Reconcile makes the changes that Check returned for want: creations and updates in the
// way of CreateAndUpdate, then, if there were deletions, those that Prune finds. It
// returns the changes that it tried to make.
func Reconcile(ctx context.Context, want Set, changes []Change, backends ...Backend) ([]Change, error) {
	todo := creationsAndUpdates(changes)
	made, err := apply(ctx, todo, backends)
	if err != nil || len(todo) == len(changes) {
		return made, err
	}
	pruned, err := Prune(ctx, want, backends...)
	return append(made, pruned...), err
}

// CheckForeign returns an error if changes would replace a Foreign. The error wraps
// fault.ErrForeign and shows each wanted object and what has its place.
func CheckForeign(changes []Change) error {
	var errs []error
	for _, c := range changes {
		if f, ok := c.Old.(Foreign); ok {
			errs = append(errs, fmt.Errorf("%s is in the way: %w: there is %s", c.New.Noun(), fault.ErrForeign, f.Have))
		}
	}
	return errors.Join(errs...)
}

// creationsAndUpdates returns changes without the deletions.
func creationsAndUpdates(changes []Change) []Change {
	var list []Change
	for _, c := range changes {
		if c.New != nil {
			list = append(list, c)
		}
	}
	return list
}

// apply makes creations and updates, unless CheckForeign refuses one of them.
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

// Prune deletes the objects of the network that are not in want, beginning with the
// last backend, and returns the changes that it tried to make. It goes on after the
// error of a backend.
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
