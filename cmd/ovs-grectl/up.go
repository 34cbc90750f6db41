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

// patience bounds what up and down do for one network. Thousands of tunnels
// take ovs-vswitchd a while.
const patience = time.Minute

// up makes the host state of the networks and keeps it, whatever containers
// come and go. Where nothing is amiss it changes nothing.
func up(ctx context.Context, c *call) int {
	files, code := c.networks()
	changes := []change{}
	for _, f := range files {
		c.progress.begin("making network " + f.Name())
		c.progress.ask(func() string { return made(ctx, f) })
		if err := raise(ctx, log{c, f.Name(), &changes}, f); err != nil {
			code = max(code, c.fail(fmt.Errorf("network %s: %w", f.Name(), err)))
		}
	}
	return c.told(code, changes)
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

func raise(ctx context.Context, l log, f conflist.File) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := conflist.Up(ctx, f, l.done)
	if errors.Is(err, conflist.ErrNoRoutesYet) {
		l.progress.clear()
		fmt.Fprintf(l.err, "ovs-grectl: network %s: %s\n", f.Name(), oneLine(err.Error()))
		return nil
	}
	return err
}
