package state

import (
	"fmt"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/config"
)

// fewest is how many changes of one kind and fault are told one by one.
const fewest = 3

// A Group is changes that one sentence tells.
type Group struct {
	// Text is what is wrong, as Change.Drift has it.
	Text    string
	Changes []Change
}

// Groups tells changes in as few sentences as there are things to tell: more
// than three of one kind, with the same thing wrong, are one. They keep the
// order of their first changes.
func Groups(changes []Change) []Group {
	byFault := map[string][]Change{}
	for _, c := range changes {
		byFault[c.fault()] = append(byFault[c.fault()], c)
	}
	var list []Group
	told := map[string]bool{}
	for _, c := range changes {
		f := c.fault()
		switch same := byFault[f]; {
		case len(same) <= fewest:
			list = append(list, Group{c.Drift(), []Change{c}})
		case !told[f]:
			told[f] = true
			list = append(list, Group{clip(fmt.Sprintf("%d %s: %s", len(same), f, names(same)), maxDrift), same})
		}
	}
	return list
}

// plurals are what several objects of a kind are called.
var plurals = map[Kind]string{
	KindBridge: "OVS bridges", KindTunnel: "tunnels", KindPort: "OVS ports", KindFDB: "FDB entries", KindSysctl: "sysctls",
	KindLink: "links", KindAddr: "addresses", KindNeigh: "neighbours", KindRoute: "routes", KindMasquerade: "masquerades",
	KindForward: "forward accepts",
}

// fault is the kind of the change and what is wrong, without names and values:
// "tunnels are missing", "tunnels differ in remote_ip".
func (c Change) fault() string {
	of := plurals[c.Kind()]
	switch {
	case c.Old == nil:
		return of + " are missing"
	case c.New == nil:
		return of + " are left over"
	}
	if _, foreign := c.Old.(Foreign); foreign {
		return of + " are in the place of others"
	}
	list := attributes(c.Old, c.New)
	if len(list) == 0 {
		return of + " differ"
	}
	name, _, _ := strings.Cut(list[0], " is ")
	return of + " differ in " + name
}

// names are the first two and how many more there are.
func names(changes []Change) string {
	list := make([]string, len(changes))
	for i, c := range changes {
		if list[i] = shortName(c.New); c.New == nil {
			list[i] = shortName(c.Old)
		}
	}
	slices.Sort(list)
	return fmt.Sprintf("%s, %s and %d more", list[0], list[1], len(list)-2)
}

// shortName tells an object from others of its kind.
func shortName(o Object) string {
	switch o := o.(type) {
	case Tunnel:
		return config.Printable(o.Peer)
	case Route:
		return o.Dst.String()
	case Neigh:
		return o.IP.String() + " on " + o.Dev
	case FDB:
		return o.MAC + " of " + o.Bridge
	case Addr:
		return o.Prefix.String() + " of " + o.Dev
	case nil:
		return ""
	}
	return o.ID().Name
}
