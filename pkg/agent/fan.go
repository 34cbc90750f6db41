package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/nodes"
)

// NoSource is the Source of a template whose nodes is no list, if no list of the hosts
// exists anywhere else. Its list is empty.
type NoSource struct{}

// List implements Source.
func (NoSource) List() (List, error) { return List{}, nil }

// Run implements Source.
func (NoSource) Run(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

// HasList reports whether a template leaves the nodes to a Source. It is true of a
// template that cannot be parsed, whose error New returns.
func HasList(template []byte) bool {
	t, err := parseTemplate(template)
	return err != nil || !t.fan
}

// passWithoutList is pass for a template whose nodes is no list. The nodes of a source
// must have the subnets that follow from their addresses; this host's own must. As long
// as the source knows no list, the conflist that is there stays.
func (a *Agent) passWithoutList(ctx context.Context) error {
	base := a.file.OVS.Base
	list, unknown := a.Source.List()
	var err error
	if unknown == nil {
		base.Node, err = a.acceptFan(&list, base.Fan)
	} else if raw, ok := readOurs(a.Conflist); ok {
		if f := conflist.Parse(a.Conflist, raw); f.OVS != nil {
			base.Node = f.OVS.Node
		}
	} else {
		err = unknown
	}
	if err != nil {
		return err
	}
	local, err := kernel.LocalAddrs(ctx)
	if err != nil {
		return err
	}
	self, err := nodes.Find(&base, local)
	if err != nil {
		return err
	}
	raw, err := a.conflist(list, base.Node, unknown == nil)
	if err != nil {
		return err
	}
	err = a.up(ctx, outcome{topology: self, file: conflist.Parse(a.Conflist, raw), sum: fmt.Sprintf("%v\n%s", self.All(), raw)})
	if err != nil || unknown != nil && !errors.Is(unknown, nodes.ErrNotReady) {
		return errors.Join(err, unknown)
	}
	wrote, err := writeConflist(a.Conflist, raw)
	if wrote {
		a.Log.Info("conflist written", "file", a.Conflist)
	}
	return err
}

// acceptFan leaves out and logs the nodes of the list whose subnets do not follow from
// their addresses. It returns the address of this host's node; "" is none. The error
// wraps config.ErrInvalid if this host's node is left out, and nodes.ErrNotReady if the
// list is known not to have it.
func (a *Agent) acceptFan(list *List, fan config.Fan) (string, error) {
	if _, none := a.Source.(NoSource); none {
		return "", nil
	}
	own, why := "", list.LeftOut[a.Node]
	left := map[string]string{}
	for _, n := range list.Nodes {
		switch right, ok := fan.Node(n.Address); {
		case !ok:
			left[n.Name] = fmt.Sprintf("its address %s is not in nodes.underlay %s", n.Address, fan.Underlay)
		case !slices.Equal(n.Subnets, right.Subnets):
			left[n.Name] = fmt.Sprintf("its container subnets %v are not %v, as nodes has it for its address %s",
				n.Subnets, right.Subnets, n.Address)
		case n.Name == a.Node:
			own = n.Address.String()
		}
		if n.Name == a.Node {
			why = left[n.Name]
		}
	}
	maps.Copy(left, list.LeftOut)
	list.Nodes = slices.DeleteFunc(list.Nodes, func(n config.Node) bool { return left[n.Name] != "" })
	list.LeftOut = left
	a.logLeftOut(*list)
	switch {
	case why != "":
		return "", fmt.Errorf("%w: this host's node %s: %s", config.ErrInvalid, a.Node, why)
	case own == "" && a.Sure:
		return "", fmt.Errorf("%w: there is no node %s, which this host is", nodes.ErrNotReady, a.Node)
	}
	return own, nil
}
