package attach

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"ovs-gre-cni/pkg/host"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/spec"
	"ovs-gre-cni/pkg/state"
)

// Live returns the network's attachments whose veth pair is there, by the names
// of their ports: where the host's end is, the container's is in a namespace
// that still exists. The links themselves say whose they are.
func Live(ctx context.Context, network string) (map[string]spec.Attachment, error) {
	live := map[string]spec.Attachment{}
	links, err := kernel.LinksByAliasPrefix(ctx, spec.AliasPrefix(network))
	for _, l := range links {
		if a, port, ok := spec.Aliased(network, l.Name, l.Alias); ok && l.Kind == "veth" {
			live[port] = a
		}
	}
	return live, err
}

// Unleased lists the live attachments that have lost their leases. It changes
// nothing.
func Unleased(ctx context.Context, network string) ([]spec.Attachment, error) {
	live, err := Live(ctx, network)
	if err != nil {
		return nil, err
	}
	var lost []spec.Attachment
	for _, name := range slices.Sorted(maps.Keys(live)) {
		held, err := host.NetworkDir(network).Holds(host.LeasesOVS, name)
		if err != nil {
			return nil, err
		}
		if held {
			continue
		}
		// A DEL takes the link before it gives the lease back.
		if _, err := hostEnd(ctx, network, name); err == nil {
			lost = append(lost, live[name])
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return lost, nil
}

// Relet gives live attachments a lease where theirs is lost: what has none is
// not counted. It returns the attachments, but for those that an ADD is making.
func Relet(ctx context.Context, network string) (map[string]spec.Attachment, error) {
	live, err := Live(ctx, network)
	if err != nil {
		return nil, err
	}
	dir := host.NetworkDir(network)
	leases, err := dir.Leases(host.LeasesOVS)
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	for _, l := range leases {
		held[l.Name] = true
		if l.Busy {
			delete(live, l.Name)
		}
	}
	for name, a := range live {
		if held[name] {
			continue
		}
		_, done, err := dir.Take(ctx, host.LeasesOVS, host.Lease{Name: name, Attachment: a})
		if err != nil {
			return nil, err
		}
		if _, err = hostEnd(ctx, network, name); errors.Is(err, fs.ErrNotExist) {
			err = dir.Release(host.LeasesOVS, name) // a DEL has just given it back
			delete(live, name)
		}
		done()
		if err != nil {
			return nil, err
		}
	}
	return live, nil
}

// Reattach gives live attachments back what was lost: their leases, and their
// ports and neighbour entries where there are none. It returns these. What an
// ADD is making now is let be, and so is what a DEL takes away meanwhile.
// Without losses it changes nothing.
func Reattach(ctx context.Context, n *network.Network) ([]state.Change, error) {
	var made []state.Change
	for {
		live, err := Relet(ctx, n.Config.Name)
		if err != nil || len(live) == 0 {
			return made, err
		}
		changes, refused := host.Ensure(ctx, hostEnds(n.Config, live),
			ovs.NewPortBackend(n.OVS, n.Config.Name), kernel.NewBackend(kernel.Scope{}))
		gone, err := vanished(ctx, n.Config.Name, changes)
		if err != nil {
			return made, err
		}
		if len(gone) == 0 {
			again, err := restoreAntispoof(ctx, n, live)
			return append(append(made, changes...), again...), errors.Join(refused, err)
		}
		// DEL takes the port first, then the link: it was in between.
		for _, c := range changes {
			if !slices.Contains(gone, c.New.ID().Name) {
				made = append(made, c)
			}
		}
		if _, err := n.OVS.DelPorts(ctx, n.Config.Name, gone...); err != nil {
			return made, err
		}
	}
}

// vanished names the ports of changes whose links have gone meanwhile.
func vanished(ctx context.Context, network string, changes []state.Change) ([]string, error) {
	var gone []string
	for _, c := range changes {
		name := c.New.ID().Name
		_, err := hostEnd(ctx, network, name)
		if errors.Is(err, fs.ErrNotExist) {
			gone, err = append(gone, name), nil
		}
		if err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// A Held is an address that host-local has given out.
type Held struct {
	IP netip.Addr
	// Attachment has it; IfName may be "".
	spec.Attachment
	// Since is when it was given.
	Since time.Time
	// Path is host-local's file.
	Path string
}

// Leaked lists the addresses that host-local holds for containers that have no
// link, although none is being made. It is nil where the network has another
// IPAM. It changes nothing.
func Leaked(ctx context.Context, c *spec.Network) ([]Held, error) {
	if c.IPAM.Type != hostLocalType {
		return nil, nil
	}
	h := hostLocal{Request: Request{Config: c}}
	all, err := h.held()
	if err != nil {
		return nil, err
	}
	live, err := Live(ctx, c.Name)
	if err != nil {
		return nil, err
	}
	valid, err := h.leased(func(l host.Lease) bool { return l.Busy })
	if err != nil {
		return nil, err
	}
	for _, a := range live {
		valid.put(a)
	}
	return slices.DeleteFunc(all, valid.has), nil
}

// Reclaim frees the leaked addresses that were given out before a time, which
// is when this boot began: nobody else's container can have them any more.
func Reclaim(ctx context.Context, c *spec.Network, before time.Time) ([]Held, error) {
	leaked, err := Leaked(ctx, c)
	leaked = slices.DeleteFunc(leaked, func(a Held) bool { return !a.Since.Before(before) })
	if err != nil || len(leaked) == 0 {
		return nil, err
	}
	return leaked, hostLocal{Request: Request{Config: c}}.free(ctx, leaked)
}

// Swept is what Sweep took away.
type Swept struct {
	Attachments []spec.Attachment
	Addresses   []Held
}

// Sweep is GC for runtimes that never call it: every attachment without a veth
// pair goes, everything that has one stays. An ADD that comes meanwhile is let
// be, so an IPAM plugin other than host-local is asked to free what the
// attachments had, not to free all but what a list names.
func Sweep(ctx context.Context, c *spec.Network) (Swept, error) {
	var s Swept
	conn, err := ovs.Dial(ctx, c.OVSDB)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	stale, _, err := leftovers(ctx, c, conn, nil)
	if err != nil {
		return s, err
	}
	live, err := Live(ctx, c.Name) // last: what an ADD has finished by now is there
	if err != nil {
		return s, err
	}
	leaked, err := Leaked(ctx, c)
	if err != nil {
		return s, err
	}
	var errs []error
	for name, a := range stale {
		_, gone := hostEnd(ctx, c.Name, name) // it may have come again by now
		if _, ok := live[name]; !ok && errors.Is(gone, fs.ErrNotExist) {
			s.Attachments = append(s.Attachments, a)
			errs = append(errs, collect(ctx, c, conn, name, a))
		}
	}
	slices.SortFunc(s.Attachments, func(a, b spec.Attachment) int {
		return strings.Compare(a.ContainerID+" "+a.IfName, b.ContainerID+" "+b.IfName)
	})
	if len(leaked) > 0 {
		s.Addresses = leaked
		errs = append(errs, hostLocal{Request: Request{Config: c}}.free(ctx, leaked))
	}
	if err := errors.Join(errs...); err != nil {
		return s, err
	}
	return s, finish(ctx, c, conn)
}

// attachments is a set of them. One without IfName stands for all of its container.
type attachments map[spec.Attachment]bool

func (s attachments) put(a spec.Attachment) {
	s[a], s[spec.Attachment{ContainerID: a.ContainerID}] = true, true
}

func (s attachments) has(h Held) bool { return s[h.Attachment] }

// leased are the attachments that have a lease which counts.
func (h hostLocal) leased(counts func(host.Lease) bool) (attachments, error) {
	leases, err := h.dir().Leases(host.LeasesOVS)
	set := attachments{}
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

// hostEnds are the OVS ports that attachments should have, and the links under
// them, which should be up.
func hostEnds(c *spec.Network, attachments map[string]spec.Attachment) state.Set {
	s := state.Set{}
	for _, a := range attachments {
		p := containerPort(Request{Config: c, Attachment: a})
		s.Put(p, state.Link{Name: p.Name, Up: true})
	}
	return s
}
