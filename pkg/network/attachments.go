package network

import (
	"context"
	"maps"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/rundir"
)

// Attachments are a network's attachments on this host at one time, by the names
// of their ports.
type Attachments struct {
	// Live are those that have a veth pair; see LiveAttachments.
	Live map[string]config.Attachment
	// Leases are the leases of ovs-gre, not of route-sync.
	Leases map[string]rundir.Lease
}

// ReadAttachments reads the links, then the leases. An ADD acquires its lease
// before it makes its link, so that a live attachment without a lease has lost
// it, unless a DEL has removed its link since.
func ReadAttachments(ctx context.Context, network string) (a Attachments, err error) {
	if a.Live, err = LiveAttachments(ctx, network); err != nil {
		return a, err
	}
	leases, err := rundir.NetworkDir(network).Leases(rundir.LeasesOVS)
	a.Leases = map[string]rundir.Lease{}
	for _, l := range leases {
		a.Leases[l.Name] = l
	}
	return a, err
}

// LiveAttachments returns the network's attachments that have a veth pair, by the names of
// their ports. While the host's end exists, the container's namespace does, too. The
// attachment is in the alias of the host's end.
func LiveAttachments(ctx context.Context, network string) (map[string]config.Attachment, error) {
	live := map[string]config.Attachment{}
	links, err := kernel.LinksByAliasPrefix(ctx, config.AliasPrefix(network))
	for _, l := range links {
		if a, port, ok := config.ParseAlias(network, l.Name, l.Alias); ok && l.Kind == "veth" {
			live[port] = a
		}
	}
	return live, err
}

// Idle are the live attachments without those that an ADD is making.
func (a Attachments) Idle() map[string]config.Attachment {
	idle := maps.Clone(a.Live)
	maps.DeleteFunc(idle, func(name string, _ config.Attachment) bool { return a.Leases[name].Busy })
	return idle
}

// WithoutLease are the live attachments that have no lease.
func (a Attachments) WithoutLease() map[string]config.Attachment {
	lost := maps.Clone(a.Live)
	maps.DeleteFunc(lost, func(name string, _ config.Attachment) bool { return a.Leases[name].Name != "" })
	return lost
}

// WithoutLink are the leases of attachments that have no veth pair and that no ADD is
// making.
func (a Attachments) WithoutLink() map[string]rundir.Lease {
	left := maps.Clone(a.Leases)
	maps.DeleteFunc(left, func(name string, l rundir.Lease) bool {
		_, live := a.Live[name]
		return live || l.Busy
	})
	return left
}
