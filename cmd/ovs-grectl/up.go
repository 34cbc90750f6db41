package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/doctor"
	"ovs-gre-cni/pkg/host"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/spec"
	"ovs-gre-cni/pkg/state"
)

// patience bounds what up and down do for one network. Thousands of tunnels
// take ovs-vswitchd a while.
const patience = time.Minute

// up makes the host state of the networks and keeps it, whatever containers
// come and go. Where nothing is amiss it changes nothing.
func up(ctx context.Context, c *call) int {
	files, code := c.networks()
	deeds := []deed{}
	for _, f := range files {
		if err := raise(ctx, log{c, f.Name(), &deeds}, f); err != nil {
			code = max(code, c.fail(fmt.Errorf("network %s: %w", f.Name(), err)))
		}
	}
	if c.json {
		code = max(code, c.print(deeds))
	}
	return code
}

func raise(ctx context.Context, l log, f doctor.File) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := persist(ctx, host.NetworkDir(f.Name())); err != nil {
		return err
	}
	if f.OVS != nil {
		if err := raiseOVS(ctx, l, f.OVS); err != nil {
			return err
		}
	}
	if f.Routes != nil {
		return raiseRoutes(ctx, l, f)
	}
	return nil
}

// persist marks the network before anything is made, so that no container
// that leaves takes it along.
func persist(ctx context.Context, dir host.Dir) error {
	unlock, err := dir.Lock(ctx, true)
	if err != nil {
		return err
	}
	defer unlock()
	return dir.SetPersistent(true)
}

func raiseOVS(ctx context.Context, l log, c *spec.Network) error {
	n, err := network.Open(ctx, c)
	if err != nil {
		return err
	}
	defer n.OVS.Close()
	stale, err := former(ctx, n)
	if err != nil {
		return err
	}
	changes, err := n.Repair(ctx)
	l.changed(changes)
	if err != nil {
		return err
	}
	for _, p := range stale {
		l.did("- ovs-vsctl --if-exists del-port %s  # container %s %s, of a former boot", p.Name, p.ContainerID, p.IfName)
	}
	changes, err = attach.Reattach(ctx, n)
	l.changed(changes)
	if err != nil {
		return err
	}
	return reclaim(ctx, l, c)
}

// former lists the ports of another boot; Repair takes them out.
func former(ctx context.Context, n *network.Network) ([]ovs.ContainerPort, error) {
	ports, err := n.OVS.ContainerPorts(ctx, n.Config.Name)
	var stale []ovs.ContainerPort
	for _, p := range ports {
		if p.BootID != ovs.BootID() {
			stale = append(stale, p)
		}
	}
	return stale, err
}

// reclaim frees the addresses of containers that did not survive a reboot.
func reclaim(ctx context.Context, l log, c *spec.Network) error {
	began, err := booted()
	if err != nil {
		return err
	}
	freed, err := attach.Reclaim(ctx, c, began)
	for _, a := range freed {
		l.did("- rm %s  # container %s %s, of a former boot", a.Path, a.ContainerID, a.IfName)
	}
	return err
}

// raiseRoutes makes the routes. Behind a plugin that is not ours the gateway
// address may come only with the first container; the routes come with it.
func raiseRoutes(ctx context.Context, l log, f doctor.File) error {
	r, err := routes.Open(ctx, f.Routes, bridge(f))
	if err != nil {
		return err
	}
	changes, err := r.Sync(ctx)
	l.changed(changes)
	if f.OVS == nil && errors.Is(err, state.ErrNoWay) && !errors.Is(err, spec.ErrInvalid) {
		fmt.Fprintf(l.err, "ovs-grectl: network %s: no routes yet: %s\n", f.Name(), oneLine(err.Error()))
		return nil
	}
	return err
}

// bridge is what route-sync takes for its bridge when it has no previous result.
func bridge(f doctor.File) string {
	if f.OVS != nil {
		return f.OVS.Bridge
	}
	return ""
}

func (l log) changed(changes []state.Change) {
	for _, c := range changes {
		l.did("%s", c)
	}
}
