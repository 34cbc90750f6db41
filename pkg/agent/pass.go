package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// pass does all there is to do: stores the nodes, brings the host state about,
// writes the conflist. As long as the source knows nothing, or does not know
// this host, the nodes are those it knew last, and the conflist stays as it is.
func (a *Agent) pass(ctx context.Context) error {
	if a.template.fan {
		return a.passWithoutList(ctx)
	}
	list, unknown := a.Source.List()
	stored, storedErr := nodes.Load(a.Store)
	lost := false // the source knows the nodes, and this host is none of them
	var self nodes.Topology
	var key string
	if unknown == nil {
		self, key, unknown = a.acceptNodes(ctx, &list, stored)
		lost = unknown != nil
	}
	if unknown != nil {
		var err error
		if list.Nodes = stored; storedErr != nil {
			return unknown // nor did it ever know anything
		}
		if self, key, err = a.self(ctx, list); err != nil {
			return errors.Join(unknown, err)
		}
	}
	raw, err := a.conflist(list, key, unknown == nil)
	if err != nil {
		return err
	}
	file := conflist.Parse(a.Conflist, raw)
	file.UseNodes(list.Nodes)
	if err := a.up(ctx, outcome{topology: self, file: file, sum: fmt.Sprintf("%v\n%s", self.All(), raw)}); err != nil {
		return err
	}
	if unknown != nil {
		if errors.Is(unknown, nodes.ErrNotReady) && !lost {
			return nil
		}
		return unknown
	}
	wrote, err := writeConflist(a.Conflist, raw)
	if wrote {
		a.Log.Info("conflist written", "file", a.Conflist)
	}
	return errors.Join(err, a.publish(ctx, self))
}

// publish tells the others this host's public key where they need it and have
// another or none: the next one, if there is one, which is in force once it is
// known.
func (a *Agent) publish(ctx context.Context, self nodes.Topology) error {
	source, able := a.Source.(Publisher)
	if !able || !state.Encrypted(a.file.OVS) {
		return nil
	}
	_, key, err := rundir.NextKey(a.file.Name())
	if errors.Is(err, fs.ErrNotExist) {
		key, err = conflist.PublicKey(a.file.Name())
	}
	if err != nil || key == self.Self.Key {
		return err
	}
	if err := source.Publish(ctx, key); err != nil {
		return fmt.Errorf("publish this host's key: %w", err)
	}
	a.Log.Info("key published", "node", self.Self.Name, "key", key)
	return nil
}

// acceptNodes leaves out of the source's list the nodes without a route, logs which
// nodes are left out, finds this host among the others, and stores them. stored is
// what the nodes file holds.
func (a *Agent) acceptNodes(ctx context.Context, list *List, stored []config.Node) (self nodes.Topology, key string, err error) {
	self, key, err = a.self(ctx, *list)
	all := len(list.Nodes)
	if err := a.dropUnrouted(ctx, list, self.Self.Address, stored); err != nil {
		return self, "", err
	}
	a.logLeftOut(*list)
	if err != nil || len(list.Nodes) < all {
		self, key, err = a.self(ctx, *list)
	}
	if err == nil {
		err = a.store(list.Nodes, stored)
	}
	return self, key, err
}

// self finds this host among the nodes. key is the name by which plugins find
// it, where its addresses do not tell them.
func (a *Agent) self(ctx context.Context, list List) (m nodes.Topology, key string, err error) {
	local, err := kernel.LocalAddrs(ctx)
	if err != nil {
		return m, "", err
	}
	m, err = nodes.Resolve(list.Nodes, "", local)
	if err == nil && (!a.Sure || m.Self.Name == a.Node) {
		return m, "", nil
	}
	byName, missing := nodes.Resolve(list.Nodes, a.Node, local)
	switch {
	case missing == nil:
		return byName, a.Node, nil
	case !a.Sure:
		return m, "", err
	case list.LeftOut[a.Node] != "":
		return m, "", fmt.Errorf("%w: this host's node %s: %s", nodes.ErrNotReady, a.Node, list.LeftOut[a.Node])
	}
	return m, "", fmt.Errorf("%w: there is no node %s, which this host is", nodes.ErrNotReady, a.Node)
}

// store keeps the nodes for the plugins, and for a start without the source.
func (a *Agent) store(list, stored []config.Node) error {
	if reflect.DeepEqual(stored, list) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(a.Store), 0o755); err != nil {
		return err
	}
	if err := nodes.Store(a.Store, list); err != nil {
		return err
	}
	a.Log.Info("nodes stored", "file", a.Store, "nodes", len(list))
	return nil
}

// conflist is the file as it should be. While the source does not know this
// host's runtime, the version stays what it was.
func (a *Agent) conflist(list List, key string, known bool) ([]byte, error) {
	v := specVersion(list.Runtime)
	if have, ok := readOurs(a.Conflist); ok && !known {
		v = version(have)
	}
	return a.template.conflist(a.Store, key, v)
}

// up brings the host state about. What is changed although the pass before
// wanted the same has come about without us.
func (a *Agent) up(ctx context.Context, o outcome) error {
	if o.file.Err != nil {
		return o.file.Err
	}
	a.mu.Lock()
	drift, failing := a.last.sum == o.sum, a.err != nil
	a.mu.Unlock()
	var changes []string
	err := conflist.Up(ctx, o.file, func(change string) { changes = append(changes, change) })
	what := "change"
	if err != nil {
		what = "tried" // some of it may be done
	}
	for _, change := range changes {
		if err == nil {
			a.metrics.changed(drift)
		} else if failing {
			break // it has been told
		}
		a.Log.Info(what, "network", o.file.Name(), "change", truncate(change), "drift", drift)
	}
	if err == nil {
		a.mu.Lock()
		a.last = o
		a.mu.Unlock()
	}
	return err
}

// truncate shortens a command for the log: a filter with a thousand subnets has
// tens of thousands of characters.
func truncate(command string) string { return config.Clip(command, 1000) }

// logLeftOut logs who is left out, when that is another than before, and who
// is not any more.
func (a *Agent) logLeftOut(list List) {
	a.mu.Lock()
	was := a.leftOut
	a.leftOut = list.LeftOut
	a.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(list.LeftOut)) {
		if why := list.LeftOut[name]; was[name] != why {
			a.Log.Warn("node left out", "node", name, "why", why)
		}
	}
	for _, n := range list.Nodes {
		if was[n.Name] != "" {
			a.Log.Info("node is left out no more", "node", n.Name)
		}
	}
}
