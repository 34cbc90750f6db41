package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/doctor"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/page"
	"ovs-gre-cni/pkg/ping"
)

// A row has the measurements from this host to the peers of a network.
type row struct {
	Network string `json:"network"`
	File    string `json:"file"`
	Node    string `json:"node"`
	// Inside is the size in bytes of the containers' largest packets, Underlay their
	// size on the underlay.
	Inside   int         `json:"mtuInside"`
	Underlay int         `json:"mtuUnderlay"`
	Peers    []ping.Edge `json:"peers"`
	// Agents are what the peers' agents say, with --all.
	Agents []agentRow `json:"agents,omitempty"`
}

// listed is up to how many objects of a kind are listed without --verbose.
const listed = 30

// pingPeers measures loss, round trip and MTU to the peers.
func pingPeers(ctx context.Context, c *call) int {
	only := c.takeAddresses()
	files, code := c.networks()
	rows := []row{}
	for _, f := range files {
		r, err := c.measure(ctx, f, only)
		if err != nil {
			code = max(code, c.fail(fmt.Errorf("network %s: %w", f.Name(), err)))
			continue
		}
		rows = append(rows, r)
		if slices.ContainsFunc(r.Peers, func(e ping.Edge) bool { return !fine(e) }) || slices.ContainsFunc(r.Agents, agentRow.silent) {
			code = max(code, exitDrift)
		}
	}
	c.progress.end()
	if c.json {
		return max(code, c.print(rows))
	}
	for _, r := range rows {
		r.text(c, c.out)
		r.square(c, c.out)
	}
	if len(rows) == 0 {
		return max(code, exitUnable)
	}
	return code
}

// takeAddresses takes those of the arguments that are addresses: the others are files.
func (c *call) takeAddresses() (addrs []netip.Addr) {
	c.files = slices.DeleteFunc(slices.Clone(c.files), func(arg string) bool {
		a, err := netip.ParseAddr(arg)
		if err == nil {
			addrs = append(addrs, a)
		}
		return err == nil
	})
	return addrs
}

// pick keeps the peers that have one of the addresses, or all where there are none.
func pick(m *nodes.Topology, only []netip.Addr) error {
	if len(only) == 0 {
		if !m.Fan.IsZero() {
			return fmt.Errorf("nodes lists no peers: name those to measure by their addresses in %s", m.Fan.Underlay)
		}
		return nil
	}
	var peers []config.Node
	for _, a := range only {
		p, ok := m.PeerOf(a)
		if !ok {
			return fmt.Errorf("%s: no peer has this address", a)
		}
		peers = append(peers, p)
	}
	m.Peers = peers
	return nil
}

func (c *call) measure(ctx context.Context, f conflist.File, only []netip.Addr) (row, error) {
	c.progress.begin("measuring the peers of network " + f.Name())
	h, err := doctor.Ways(ctx, f)
	if err == nil {
		err = pick(&h.Mesh, only)
	}
	if n := len(h.Mesh.Peers); err == nil && c.all && n > page.AskMost {
		err = fmt.Errorf("--all: the agents of at most %d peers can be asked, here are %d: name some by their addresses", page.AskMost, n)
	}
	if err != nil {
		return row{}, err
	}
	r := row{Network: f.Name(), File: f.Path, Node: h.Mesh.Self.Name, Inside: h.Inside, Underlay: h.Underlay}
	told := make(chan map[string]page.Told, 1)
	go func() {
		if c.all {
			told <- page.AskAll(ctx, f.Name(), h.Mesh, page.Port)
		} else {
			told <- nil
		}
	}()
	r.Peers, err = ping.Row(ctx, h, func(done, of int) {
		c.progress.step("measuring %d peers of network %s, step %d of %d", len(h.Mesh.Peers), f.Name(), done, of)
	})
	said := <-told
	for _, p := range h.Mesh.Peers {
		if t, asked := said[p.Name]; asked {
			r.Agents = append(r.Agents, newAgentRow(p.Name, t))
		}
	}
	return r, err
}

func fine(e ping.Edge) bool { return e.Underlay.OK() && (e.Tunnel == nil || e.Tunnel.OK()) }

func (r row) text(c *call, w io.Writer) {
	good := 0
	t := table{indent: "  "}
	t.add("peer", "underlay", "loss", "ms", "MTU", "tunnel", "loss", "ms", "MTU")
	for _, e := range r.Peers {
		if fine(e) {
			good++
			if !c.verbose && len(r.Peers) > listed {
				continue
			}
		}
		if len(t.rows) > listed && !c.verbose {
			continue
		}
		tunnel := []string{"", "", "", ""}
		if e.Tunnel != nil {
			tunnel = cells(*e.Tunnel)
		}
		t.add(slices.Concat([]string{oneLine(e.Peer)}, cells(e.Underlay), tunnel)...)
	}
	title := c.colour(bold, "network "+r.Network)
	fmt.Fprintf(w, "%s  from %s: %d of %d peers answer everything\n", title, oneLine(r.Node), good, len(r.Peers))
	if len(t.rows) == 1 {
		return
	}
	t.paint = func(n, column int) string {
		cell := t.rows[n][column]
		switch {
		case n == 0:
			return bold
		case (column == 2 || column == 6) && cell != "" && cell != "0 %":
			return red
		case (column == 4 || column == 8) && len(cell) > 0 && cell[len(cell)-1] == '<':
			return red
		}
		return ""
	}
	t.print(c, w)
	if shown := len(t.rows) - 1; !c.verbose && len(r.Peers)-good > shown {
		fmt.Fprintf(w, "  and %d more (-v lists all)\n", len(r.Peers)-good-shown)
	}
}

// cells are the cells of a path. An MTU that is less than the size that this host sends has a
// "<" behind it.
func cells(p ping.Path) []string {
	s := []string{p.Address.String(), strconv.Itoa(p.Lost()) + " %", "", ""}
	if p.Received > 0 {
		s[2], s[3] = strconv.FormatFloat(p.RTT, 'f', 2, 64), strconv.Itoa(p.MTU)
	}
	if p.Small {
		s[3] += " <"
	}
	return s
}
