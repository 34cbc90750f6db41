package attach

import (
	"context"
	"encoding/json"
	"errors"
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
	links, err := kernel.LinksByAliasPrefix(ctx, AliasPrefix+network+" ")
	for _, l := range links {
		f := strings.Fields(strings.TrimPrefix(l.Alias, AliasPrefix+network))
		if len(f) == 2 && spec.PortName(network, f[0], f[1]) == l.Name {
			live[l.Name] = spec.Attachment{ContainerID: f[0], IfName: f[1]}
		}
	}
	return live, err
}

// Reattach gives live attachments back what was lost: their leases, and their
// ports where OVSDB has none. It returns the ports. What an ADD is making now
// is let be. Without losses it changes nothing.
func Reattach(ctx context.Context, n *network.Network) ([]state.Change, error) {
	live, err := Live(ctx, n.Config.Name)
	if err != nil || len(live) == 0 {
		return nil, err
	}
	leases, err := n.Dir.Leases(host.LeasesOVS)
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
	want := state.Set{}
	for name, a := range live {
		if !held[name] {
			_, done, err := n.Dir.Take(ctx, host.LeasesOVS, host.Lease{Name: name, Attachment: a})
			if err != nil {
				return nil, err
			}
			done()
		}
		want.Put(containerPort(Request{Config: n.Config, Attachment: a}))
	}
	return host.Ensure(ctx, want, ovs.NewBackend(n.OVS, n.Config.Name))
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
	return leaked, hostLocal{Request: Request{Config: c}}.free(leaked)
}

// Swept is what Sweep took away.
type Swept struct {
	Attachments []spec.Attachment
	Addresses   []Held
}

// Sweep is GC for runtimes that never call it: every attachment without a veth
// pair goes, everything that has one stays.
func Sweep(ctx context.Context, c *spec.Network) (Swept, error) {
	var s Swept
	live, err := Live(ctx, c.Name)
	if err != nil {
		return s, err
	}
	conn, err := ovs.Dial(ctx, c.OVSDB)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	keep, valid := map[string]bool{}, []spec.Attachment{}
	for name, a := range live {
		keep[name], valid = true, append(valid, a)
	}
	stale, _, err := leftovers(ctx, c, conn, keep)
	for _, a := range stale {
		s.Attachments = append(s.Attachments, a)
	}
	slices.SortFunc(s.Attachments, func(a, b spec.Attachment) int {
		return strings.Compare(a.ContainerID+" "+a.IfName, b.ContainerID+" "+b.IfName)
	})
	leaked, err2 := Leaked(ctx, c)
	s.Addresses = leaked
	if err := errors.Join(err, err2); err != nil {
		return Swept{}, err
	}
	told := *c
	told.Raw = tell(c.Raw, valid)
	return s, GC(ctx, &told, valid)
}

// tell puts the valid attachments into a configuration, as libcni does: an IPAM
// plugin may take their absence for none.
func tell(conf []byte, valid []spec.Attachment) []byte {
	var fields map[string]json.RawMessage
	list, err := json.Marshal(valid)
	if err != nil || json.Unmarshal(conf, &fields) != nil {
		return conf
	}
	fields["cni.dev/valid-attachments"], fields["cni.dev/attachments"] = list, list
	raw, err := json.Marshal(fields)
	if err != nil {
		return conf
	}
	return raw
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

// Ports are the OVS ports that attachments should have.
func Ports(c *spec.Network, attachments map[string]spec.Attachment) state.Set {
	s := state.Set{}
	for _, a := range attachments {
		s.Put(containerPort(Request{Config: c, Attachment: a}))
	}
	return s
}
