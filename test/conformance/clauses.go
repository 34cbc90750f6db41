package conformance

import (
	"errors"
	"fmt"
	"slices"
)

// clauses are all of them, in the order in which they are tried.
var clauses = slices.Concat(common, addClauses, delClauses, checkClauses, statusClauses, gcClauses, toolClauses, overall)

// What a clause is about.
func hasOVS(n network) bool    { return n.plugins[0].typ() == "ovs-gre" }
func hasRoutes(n network) bool { return n.index("route-sync") > 0 }
func hasBoth(n network) bool   { return hasOVS(n) && hasRoutes(n) }
func ours(n network) bool      { return hasOVS(n) || hasRoutes(n) }
func chained(n network) bool   { return len(n.plugins) > 1 }
func hasIPAM(n network) bool   { return n.plugins[0].ipam().str("type") != "" }
func hostLocal(n network) bool { return n.plugins[0].ipam().str("type") == "host-local" }

func hostLocalIPs(n network) bool { return hostLocal(n) && n.plugins[0].capable("ips") }
func takesMAC(n network) bool     { return n.plugins[0].capable("mac") }

// all returns the first error of calls.
func all(fs ...func() error) error {
	for _, f := range fs {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// about puts a clause's circumstance before its error.
func about(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// unchanged wants the host and boxes to be as before f.
func (t *try) unchanged(f func() error, boxes ...*box) error {
	was, err := t.steady(boxes...)
	if err != nil {
		return err
	}
	return errors.Join(f(), t.same(was, boxes...))
}
