package network

import (
	"context"
	"errors"

	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// keepAdvertised sees to it that the host's own default route of IPv6, where it
// came by a router advertisement, survives that want switches forwarding on.
// It notes the links first: a call that is killed leaves no change unnoted.
func (n *Network) keepAdvertised(ctx context.Context, want state.Set) error {
	if _, asked := want[state.Sysctl{Key: kernel.Forwarding6}.ID()]; !asked || kernel.Forwards6() {
		return nil
	}
	links, err := kernel.Advertised(ctx)
	if err != nil || len(links) == 0 {
		return err
	}
	if err := n.Dir.SaveAcceptRALinks(links); err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		errs = append(errs, kernel.KeepAdvertised(l))
	}
	return errors.Join(errs...)
}

// unkeepAdvertised takes that back where forwarding is off again. While it is
// on, as we leave it, the route would go: then the link goes on listening,
// which without forwarding is no different from before.
func unkeepAdvertised(dir rundir.Dir) error {
	if kernel.Forwards6() {
		return nil
	}
	var errs []error
	for _, l := range dir.AcceptRALinks() {
		errs = append(errs, kernel.UnkeepAdvertised(l))
	}
	return errors.Join(errs...)
}
