package network

import (
	"context"
	"errors"

	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// keepAdvertised keeps the host's IPv6 default route by a router advertisement, which the
// kernel would drop when want switches forwarding on. It saves the names of the links
// before it changes them, so that Remove knows them even if this call is killed.
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

// unkeepAdvertised undoes keepAdvertised if forwarding is off. While it is on, the route
// would be dropped, so the links stay as they are.
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
