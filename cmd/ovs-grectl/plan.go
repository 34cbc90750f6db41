package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/state"
)

// planned is a network's plan, as --output json prints it.
type planned struct {
	Network  string   `json:"network"`
	File     string   `json:"file"`
	Node     string   `json:"node"`
	Commands []string `json:"commands"`
	self     nodes.Topology
	script   string
}

// plan prints the commands that make the host state on a bare host. It does not read OVS.
func plan(ctx context.Context, c *call) int {
	files, code := c.networks()
	plans := []planned{}
	for _, f := range files {
		p, err := planFile(ctx, f)
		if err != nil {
			code = max(code, c.fail(fmt.Errorf("network %s: %w", f.Name(), err)))
			continue
		}
		plans = append(plans, p)
	}
	if c.json {
		return max(code, c.print(plans))
	}
	if len(plans) == 0 {
		return max(code, exitUnable)
	}
	fmt.Fprint(c.out, "#!/bin/sh\n# What \"ovs-grectl up\" does on this host, as commands. Running it twice does no harm.\nset -e\n")
	for _, p := range plans {
		fmt.Fprintf(c.out, "\n### Network %s, from %q, on %q\n%s", p.Network, p.File, p.self.Self.String(), p.script)
	}
	return code
}

func planFile(ctx context.Context, f conflist.File) (planned, error) {
	p := planned{Network: f.Name(), File: f.Path, Commands: []string{}}
	var err error
	want := state.Set{}
	if f.OVS != nil {
		if p.self, err = planHost(ctx, f.OVS, want); err != nil {
			return p, err
		}
	}
	if f.Routes != nil {
		if err := planRoutes(ctx, f, &p, want); err != nil {
			return p, err
		}
	}
	p.Node = p.self.Self.Name
	needless, err := accepted(ctx, f.Name(), want)
	if err != nil {
		return p, err
	}
	var b strings.Builder
	last := state.Kind(255)
	for _, o := range want.Sorted() {
		if k := o.ID().Kind; k != last {
			fmt.Fprintf(&b, "\n# %s\n", headings[k])
			last = k
		}
		command := o.String()
		if needless[o.ID()] == o && o.ID().Kind == state.KindForward {
			fmt.Fprintf(&b, "# not needed, nothing here drops it: %s\n", command)
			continue
		}
		if f.OVS != nil && f.OVS.OVSDB != config.DefaultOVSDB {
			command = strings.ReplaceAll(command, "ovs-vsctl ", "ovs-vsctl --db=unix:"+f.OVS.OVSDB+" ")
			command = strings.ReplaceAll(command, "ovs-ofctl ", "OVS_RUNDIR="+filepath.Dir(f.OVS.OVSDB)+" ovs-ofctl ")
			command = strings.ReplaceAll(command, "ovs-appctl ", "OVS_RUNDIR="+filepath.Dir(f.OVS.OVSDB)+" ovs-appctl ")
		}
		switch o.ID().Kind {
		case state.KindForward:
			fmt.Fprint(&b, once(command))
		case state.KindFDB: // the network works without
			fmt.Fprintln(&b, command+" || true")
		default:
			fmt.Fprintln(&b, command)
		}
		p.Commands = append(p.Commands, command)
	}
	p.script = b.String()
	return p, nil
}

// once makes a command of iptables that adds a rule only if it is not there.
func once(command string) string {
	return fmt.Sprintf("%s 2>/dev/null || %s\n", strings.Replace(command, " -A ", " -C ", 1), command)
}

// headings are comments of the script about the commands of each kind.
var headings = map[state.Kind]string{
	state.KindBridge: "The containers' OVS bridge, whose internal port is their gateway; " +
		"the tunnels', whose internal port leads to the peers.",
	state.KindGuard:         "Nothing passes in clear between this host and its peers' containers, whatever else there is.",
	state.KindWireGuard:     "The WireGuard link, with this host's private key, which is made once.",
	state.KindWireGuardPeer: "Each peer by its public key, with its container subnets.",
	state.KindTunnel:        "A tunnel to each peer. Protected ports exchange no frames, so that a full mesh has no loop.",
	state.KindFlows: "The table of the one tunnel: what is for a peer goes to it, what peers send comes in, " +
		"the rest is dropped and counted.",
	state.KindFDB: "No container takes over the gateway's MAC address, and what is for one peer goes to no other. " +
		"OVS before 2.16 cannot.",
	state.KindSysctl:     "The kernel forwards, and takes what comes by the tunnels.",
	state.KindLink:       "Links are up.",
	state.KindAddr:       "The gateway's addresses.",
	state.KindNeigh:      "The peers' MAC addresses follow from their addresses: nobody needs to ask.",
	state.KindRoute:      "A route to each peer's container subnets.",
	state.KindMasquerade: "What leaves the network is masqueraded.",
	state.KindForward:    "Where this host drops what it forwards, what the network forwards is accepted.",
}

func planHost(ctx context.Context, c *config.Network, want state.Set) (nodes.Topology, error) {
	m, err := network.Resolve(ctx, &c.Base)
	if err != nil {
		return m, err
	}
	n := network.Network{Config: c, Topology: m}
	set, _, err := n.Want(ctx)
	if err != nil {
		return m, err
	}
	want.Put(set.Sorted()...)
	return m, nil
}

func planRoutes(ctx context.Context, f conflist.File, p *planned, want state.Set) error {
	var set state.Set
	var err error
	if f.OVS != nil {
		set, err = routes.Plan(ctx, f.Routes, p.self, f.OVS)
	} else {
		var r *routes.Routes
		if r, err = routes.Open(ctx, f.Routes, ""); err == nil {
			p.self = r.Topology
			set, err = r.Want()
		}
	}
	want.Put(set.Sorted()...)
	return err
}

// accepted are the wanted Forwards whose packets no chain of this host drops.
func accepted(ctx context.Context, name string, want state.Set) (state.Set, error) {
	have, err := firewall.NewBackend(name).Observe(ctx, want)
	if err != nil {
		return nil, err
	}
	routes, err := firewall.NewRoutesBackend(name).Observe(ctx, want)
	have.Put(routes.Sorted()...)
	return have, err
}
