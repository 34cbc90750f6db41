package main

import (
	"context"
	"encoding/json"
	"fmt"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/state"
)

// A keyed is this host's entry of a network's nodes, as --output json prints it.
type keyed struct {
	Network string      `json:"network"`
	Node    config.Node `json:"node"`
}

// key prints this host's entry for nodes with its public key. The private key is
// made if there is none, and stays where it is.
func key(ctx context.Context, c *call) int {
	files, code := c.networks()
	list := []keyed{}
	for _, f := range files {
		if f.OVS == nil || !state.Encrypted(f.OVS) {
			fmt.Fprintf(c.err, "ovs-grectl: network %s: it has no keys, its tunnel.type is not wireguard\n", f.Name())
			continue
		}
		node, err := keyedNode(ctx, f.OVS, c.next)
		if err != nil {
			code = max(code, c.fail(fmt.Errorf("network %s: %w", f.Name(), err)))
			continue
		}
		list = append(list, keyed{f.Name(), node})
	}
	if c.json {
		return max(code, c.print(list))
	}
	if len(list) == 0 {
		return max(code, exitUnable)
	}
	for _, k := range list {
		line, err := json.Marshal(k.Node)
		if err != nil {
			return c.fail(err)
		}
		fmt.Fprintln(c.out, string(line))
	}
	return code
}

func keyedNode(ctx context.Context, n *config.Network, next bool) (config.Node, error) {
	m, err := network.Resolve(ctx, &n.Base)
	if err != nil {
		return m.Self, err
	}
	if next {
		m.Self.Key, err = conflist.NextKey(n.Name)
	} else {
		m.Self.Key, err = conflist.PublicKey(n.Name)
	}
	return m.Self, err
}
