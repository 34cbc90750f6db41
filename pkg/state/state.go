package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Kind orders objects: an object depends only on lower kinds.
type Kind uint8

// The kinds, in order of dependence.
const (
	KindGuard Kind = iota // before anything that could send in clear
	KindBridge
	KindTunnel
	KindPort
	KindFlows
	KindFDB
	KindWireGuard
	KindSysctl
	KindLink
	KindWireGuardPeer // behind the link that is up: a session is made at once
	KindAddr
	KindNeigh
	KindRoute
	KindMasquerade
	KindForward
)

// An Object is one thing on the host. Implementations are comparable structs;
// two objects with equal ID are the same thing and differ only in attributes.
type Object interface {
	// ID names the thing on the host.
	ID() ID
	// Noun names the thing in messages: "route 192.168.2.0/24".
	Noun() string
	// String is the command that makes it.
	String() string
}

// ID names an object on the host.
type ID struct {
	Kind Kind
	Name string
}

// Foreign is an observed thing that has the ID of a wanted object and does not belong
// to the network. It is never changed or removed.
type Foreign struct {
	// Want is the wanted object.
	Want Object
	// Have describes the foreign thing, for messages.
	Have string
}

// ID returns the ID of the wanted object.
func (f Foreign) ID() ID { return f.Want.ID() }

// Noun returns the noun of the wanted object.
func (f Foreign) Noun() string { return f.Want.Noun() }

func (f Foreign) String() string { return "foreign: " + f.Have }

// A Set holds objects by ID.
type Set map[ID]Object

// Put adds objects to s.
func (s Set) Put(objs ...Object) {
	for _, o := range objs {
		s[o.ID()] = o
	}
}

// Needed returns the objects without which packets would not arrive: all but FDB
// entries and probed neighbours, which only keep OVS from flooding.
func (s Set) Needed() Set {
	needed := Set{}
	for id, o := range s {
		if n, ok := o.(Neigh); id.Kind != KindFDB && (!ok || n.MAC != "") {
			needed[id] = o
		}
	}
	return needed
}

// Sorted lists the objects in order of dependence, then by name.
func (s Set) Sorted() []Object {
	objs := make([]Object, 0, len(s))
	for _, id := range s.sorted(func(ID) bool { return true }) {
		objs = append(objs, s[*id])
	}
	return objs
}

// sorted returns the IDs for which pick is true, in order of dependence, then by name.
func (s Set) sorted(pick func(ID) bool) []*ID {
	var ids []*ID // a plugin already contains the generic sort of pointers: it stays smaller
	for id := range s {
		if pick(id) {
			ids = append(ids, &id)
		}
	}
	slices.SortFunc(ids, func(a, b *ID) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return ids
}

// String returns the commands that make the set, one object a line.
func (s Set) String() string {
	var b strings.Builder
	for _, o := range s.Sorted() {
		fmt.Fprintln(&b, o)
	}
	return b.String()
}

// A Change turns Old into New. A nil Old creates, a nil New deletes.
type Change struct{ Old, New Object }

// Kind is the kind of the object that changes.
func (c Change) Kind() Kind {
	if c.New != nil {
		return c.New.ID().Kind
	}
	return c.Old.ID().Kind
}

// String returns a sign (+ created, - deleted, ~ updated) and the command that makes the
// object; of an update also the command that made the old one.
func (c Change) String() string {
	switch {
	case c.Old == nil:
		return "+ " + typed(c.New, c.New.Noun())
	case c.New == nil:
		return "- " + typed(c.Old, c.Old.Noun())
	default:
		return "~ " + typed(c.New, c.New.Noun()) + "  (was: " + typed(c.Old, c.Old.Noun()) + ")"
	}
}

// typed is an object's command, or else where that is longer than anybody reads
// or types: of thousands of peers it is a megabyte.
func typed(o Object, otherwise string) string {
	if s := o.String(); len(s) <= 8<<10 {
		return s
	}
	return otherwise
}

// Diff returns the changes that turn have into want: creations and updates in
// order of dependence first, so that traffic always has a route, then deletions in
// reverse order. A Foreign is never deleted.
func Diff(want, have Set) []Change {
	var changes []Change
	for _, id := range want.sorted(func(id ID) bool { return have[id] != want[id] }) {
		changes = append(changes, Change{Old: have[*id], New: want[*id]})
	}
	remove := have.sorted(func(id ID) bool {
		_, wanted := want[id]
		_, foreign := have[id].(Foreign)
		return !wanted && !foreign
	})
	for _, id := range slices.Backward(remove) {
		changes = append(changes, Change{Old: have[*id]})
	}
	return changes
}
