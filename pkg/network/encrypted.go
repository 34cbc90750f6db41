package network

import (
	"context"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/state"
)

// leaveEncrypted takes away the WireGuard link that host state was made with
// where the configuration has none any more, or one of another name, and then
// the guard, where it has none. It comes before what is new: two links cannot have one
// UDP port, and a guard that a call which was killed leaves would drop what goes by
// tunnels.
func (n *Network) leaveEncrypted(ctx context.Context) ([]state.Change, error) {
	was, _ := config.Parse(n.Dir.SavedConfig())
	if was.Name != n.Config.Name || !state.Guarded(was) {
		return nil, nil
	}
	var gone []state.Change
	link := config.WireGuardName(was.Bridge)
	if stays := state.Encrypted(n.Config) && link == config.WireGuardName(n.Config.Bridge); state.Encrypted(was) && !stays {
		scope := kernel.Scope{WireGuard: kernel.WireGuardScope{Network: was.Name, Link: link}}
		var err error
		if gone, err = state.Prune(ctx, state.Set{}, kernel.NewBackend(scope)); err != nil {
			return gone, err
		}
	}
	if state.Guarded(n.Config) {
		return gone, nil
	}
	guard, err := state.Prune(ctx, state.Set{}, firewall.NewGuardBackend(state.GuardForm(was)))
	return append(gone, guard...), err
}

// Unkeyed is a text about the peers whose public keys this host does not know; "" if there
// are none, or the network is not encrypted.
func (n *Network) Unkeyed() string {
	if !state.Encrypted(n.Config) {
		return ""
	}
	names := few(state.Unkeyed(n.Topology))
	if names == "" {
		return ""
	}
	return "nodes have no key for " + names
}
