package doctor

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
)

// wireGuard looks at what encrypted networks need: WireGuard in the kernel, keys
// that nodes have, and at when each peer was last heard of.
func wireGuard(ctx context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		if n.encrypted() && n.topologyErr == nil {
			list = append(list, n.wireGuard(ctx)...)
		}
	}
	return list
}

func (n *networkInfo) wireGuard(ctx context.Context) []Finding {
	open := &network.Network{Config: n.OVS, Topology: n.topology}
	var list []Finding
	if unkeyed := open.Unkeyed(); unkeyed != "" {
		list = append(list, warn(n.Name(), n.ctlCommand("key")+"  # there", "%s: nothing gets to their containers", unkeyed))
	}
	switch wrong, err := conflist.WrongKey(open); {
	case errors.Is(err, fs.ErrNotExist): // the first container makes it
	case err != nil:
		return append(list, unknown(n.Name(), err))
	case wrong != "":
		list = append(list, fail(n.Name(), n.editCommand(), "%s", wrong))
	}
	peers, err := conflist.WireGuardPeers(ctx, open)
	switch dir := moduleDir(); {
	case errors.Is(err, fs.ErrNotExist) && !loaded(dir, "wireguard") && !loadable(dir, "wireguard"):
		return append(list, fail(n.Name(), "apt-get install linux-modules-extra-$(uname -r) && modprobe wireguard", "%v", kernel.ErrNoWireGuard))
	case errors.Is(err, fs.ErrNotExist):
		return append(list, ok(n.Name(), "no link is made yet"))
	case err != nil:
		return append(list, unknown(n.Name(), err))
	}
	// One that nobody talks to needs no session: whether it answers, the check of
	// the tunnels tells.
	sessions := 0
	var silent []string
	for _, peer := range peers {
		switch peer.State {
		case "up":
			sessions++
		case "idle":
			silent = append(silent, peer.Node.Name+": "+peer.Age())
		}
	}
	text := ""
	if len(silent) > 0 {
		text = "; none with " + strings.Join(silent[:min(len(silent), 5)], ", ")
	}
	return append(list, ok(n.Name(), "sessions with %d of %d peers%s", sessions, len(peers), text))
}
