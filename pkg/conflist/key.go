package conflist

import (
	"context"
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// PublicKey returns this host's public key for a network, in base64. It makes the private
// key if there is none.
func PublicKey(network string) (string, error) {
	if err := rundir.SyncKey(network, ""); err != nil {
		return "", err
	}
	k, err := rundir.PrivateKey(network)
	if err != nil {
		return "", err
	}
	return public(k)
}

// NextKey returns the public key of this host's next private key for a network, in
// base64, and makes that key if there is none. The next key replaces the present one when
// the nodes name it.
func NextKey(network string) (string, error) {
	k := rundir.NewKey()
	p, err := public(k)
	if err == nil {
		err = rundir.StoreNextKey(network, k, p)
	}
	if err == nil {
		_, p, err = rundir.NextKey(network)
	}
	return p, err
}

// public returns the public key of a private key (RFC 7748, section 6.1). The plugins do
// not link it: crypto/ecdh is 0.15 MB of a program.
func public(k rundir.Key) (string, error) {
	private, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(private.PublicKey().Bytes()), nil
}

// A WireGuardPeer is a peer of an encrypted network with its state in WireGuard.
type WireGuardPeer struct {
	Node config.Node
	// State is "up" with a session, "idle" without one, and "no key" where the nodes
	// have no key for the peer.
	State string
	// Handshake is the time of the last handshake; the zero Time is none.
	Handshake time.Time
	// Received and Sent are bytes.
	Received, Sent uint64
}

// Age says for a message how long ago the last handshake was.
func (p WireGuardPeer) Age() string {
	if p.Handshake.IsZero() {
		return "no handshake yet"
	}
	return fmt.Sprintf("last handshake %v ago", time.Since(p.Handshake).Round(time.Second))
}

// WireGuardPeers returns the peers of an encrypted network in the order of its nodes.
// The error wraps fs.ErrNotExist where there is no link.
func WireGuardPeers(ctx context.Context, n *network.Network) ([]WireGuardPeer, error) {
	dev, err := kernel.WireGuard(ctx, n.Config.Name, config.WireGuardName(n.Config.Bridge))
	if err != nil {
		return nil, err
	}
	var list []WireGuardPeer
	for _, node := range n.Topology.Peers {
		p := WireGuardPeer{Node: node, State: "no key"}
		if node.Key != "" {
			p.State = "idle"
		}
		at := slices.IndexFunc(dev.Peers, func(k kernel.WireGuardPeer) bool { return k.Text() == node.Key })
		if at >= 0 {
			k := dev.Peers[at]
			p.Handshake, p.Received, p.Sent = k.Handshake, k.Received, k.Sent
			if k.Alive() {
				p.State = "up"
			}
		}
		list = append(list, p)
	}
	return list, nil
}

// WrongKey returns a message if the nodes have another key for this host than it has, so
// that the peers accept nothing from it; "" is the same key, or none in the nodes.
func WrongKey(n *network.Network) (string, error) {
	listed := n.Topology.Self.Key
	if !state.Encrypted(n.Config) || listed == "" {
		return "", nil
	}
	k, err := rundir.PrivateKey(n.Config.Name)
	if err != nil {
		return "", err
	}
	if own, err := public(k); err != nil || own == listed {
		return "", err
	}
	return fmt.Sprintf("nodes have %s for this host's key, which is another: ovs-grectl key prints it", listed), nil
}
