package doctor

import (
	"context"
	"errors"
	"strings"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/state"
)

// containers looks at the host's ends of running containers, and whether what
// they send fits into the tunnels.
func containers(ctx context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		if n.OVS == nil || n.topologyErr != nil {
			continue
		}
		found, err := n.containers(ctx)
		switch {
		case errors.Is(err, fault.ErrUnavailable):
			continue // the check of the daemons says so
		case err != nil:
			list = append(list, unknown(n.Name(), err))
		case len(found) == 0:
			list = append(list, ok(n.Name(), "the containers' links and ports are as ADD made them"))
		}
		list = append(list, found...)
	}
	return list
}

func (n *networkInfo) containers(ctx context.Context) ([]Finding, error) {
	open, err := network.Open(ctx, n.OVS)
	if err != nil {
		return nil, err
	}
	defer open.OVS.Close()
	changes, err := attach.DriftedPorts(ctx, open)
	if err != nil {
		return nil, err
	}
	var list []Finding
	if len(changes) > 0 {
		cmd := n.upCommand()
		if state.CheckForeign(changes) != nil {
			cmd = n.ctlCommand("status") // up would be refused, too
		}
		list = append(list, fail(n.Name(), cmd, "%s%s", state.Groups(changes)[0].Text, others(changes)))
	}
	_, mtu, err := open.Want(ctx)
	if err != nil {
		return list, nil // the check of the host state says why
	}
	large, err := attach.OversizedMTUs(ctx, open, mtu)
	if len(large) > 0 {
		const most = 3
		more := ""
		if len(large) > most {
			more = " (ovs-grectl status has all)"
		}
		list = append(list, fail(n.Name(), "",
			"%d containers send packets that are too large for the way to the peers, since the underlay takes less: %s%s",
			len(large), strings.Join(large[:min(len(large), most)], "; "), more))
	}
	return list, err
}
