package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/state"
)

// up makes the host state of the networks and marks it persistent, so that it stays
// without containers. If nothing differs it changes nothing.
func up(ctx context.Context, c *call) int {
	files, code := c.networks()
	return c.change(ctx, files, code, "making network", func(ctx context.Context, l log, f conflist.File) error {
		c.progress.ask(func() string { return made(ctx, f) })
		err := conflist.Up(ctx, f, l.report)
		if errors.Is(err, conflist.ErrNoRoutesYet) {
			l.note(err.Error())
			return nil
		}
		return err
	})
}

// made says how many of a network's tunnels OVS has.
func made(ctx context.Context, f conflist.File) string {
	if f.OVS == nil || f.OVS.Tunnel.Type == config.TunnelNone || state.OneTunnel(f.OVS) {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := ovs.Dial(ctx, f.OVS.OVSDB)
	if err != nil {
		return ""
	}
	defer conn.Close()
	m, err := network.Resolve(ctx, f.Base())
	if err != nil {
		return ""
	}
	tunnels, err := conn.Tunnels(ctx, f.Name())
	if err != nil {
		return ""
	}
	there := 0
	for _, t := range tunnels {
		if t.State == "up" {
			there++
		}
	}
	return fmt.Sprintf(": %d of %d tunnels", there, len(m.Peers))
}
