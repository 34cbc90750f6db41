package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/ovs"
)

// text prints the report for a person.
func (r report) text(c *call, w io.Writer) {
	kept := "goes with its last container"
	if r.Persistent {
		kept = "persistent"
	}
	fmt.Fprintf(w, "%s  %s\n", c.colour(bold, "network "+r.Network), r.File)
	switch {
	case r.Node == "": // an error says why this host is none of the nodes
	case r.Underlay != "":
		fmt.Fprintf(w, "  node %s, its peers are the hosts in %s, %s\n", r.Address, r.Underlay, kept)
	default:
		fmt.Fprintf(w, "  node %s (%s), %d peers, %s\n", oneLine(r.Node), r.Address, r.Peers, kept)
	}
	t := table{indent: "  "}
	t.paint = func(row, column int) string {
		if column != 2 {
			return ""
		}
		switch t.rows[row][2] {
		case "up", "ok", stateAttached:
			return green
		case stateBusy:
			return yellow
		}
		return red
	}
	r.Bridge.row(&t, "bridge")
	if len(r.WireGuard) > 0 {
		r.Transit.row(&t, "wireguard")
	} else {
		r.Transit.row(&t, "transit")
	}
	counted := r.tunnels(c, &t)
	counted = append(counted, r.wireGuard(c, &t)...)
	counted = append(counted, r.routeRows(c, &t)...)
	counted = append(counted, r.containerRows(c, &t)...)
	t.print(c, w)
	for _, line := range counted {
		fmt.Fprintln(w, "  "+line)
	}
	for _, s := range r.Notes {
		fmt.Fprintln(w, "  note:", s)
	}
	if r.unmade && !c.verbose {
		fmt.Fprintln(w, "  "+c.colour(yellow, "nothing is made yet")+": the first container does it, or ovs-grectl up (-v lists what)")
		r.summary = slices.DeleteFunc(r.summary, func(s summary) bool { return s.unmade })
	}
	for _, s := range r.summary {
		fmt.Fprintln(w, "  "+c.colour(red, "DRIFT:"), s.text)
		if byHand := r.ByHand[s.first]; c.verbose && byHand != "" {
			fmt.Fprintln(w, "         by hand: "+byHand)
		}
	}
	r.verdict(c, w)
}

// verdict prints what mends the drift, the errors, or that nothing is wrong.
func (r report) verdict(c *call, w io.Writer) {
	switch {
	case len(r.summary) == 0 || r.unmade:
	case r.foreign:
		fmt.Fprintln(w, "  ovs-grectl doctor "+r.File+" says what mends it (-v: the command behind each)")
	default:
		fmt.Fprintln(w, "  mend: ovs-grectl up "+r.File+" (-v: the command behind each)")
	}
	for _, s := range r.Errors {
		fmt.Fprintln(w, "  "+c.colour(red, "ERROR:"), s)
	}
	switch silent := r.silent(); {
	case len(r.Drift)+len(r.Errors) > 0:
	case silent > 0:
		fmt.Fprintf(w, "  as it should be here, but %d tunnels carry nothing\n", silent)
	default:
		fmt.Fprintln(w, "  "+c.colour(green, "as it should be"))
	}
}

// rows adds the objects of a kind to the table: all of them or, if there are many, the first
// three that are not well. It returns a line about the others.
func rows[T any](c *call, t *table, what string, list []T, well func(T) bool, cells func(T) []string) []string {
	bad, shown := 0, 0
	for _, x := range list {
		if !well(x) {
			bad++
		}
		if c.verbose || len(list) <= listed || !well(x) && shown < 3 {
			t.add(append([]string{what}, cells(x)...)...)
			shown++
		}
	}
	if shown == len(list) {
		return nil
	}
	return []string{fmt.Sprintf("%d of %d %ss are ok (-v lists all)", len(list)-bad, len(list), what)}
}

// carries reports whether a tunnel works, according to OVS.
func carries(u ovs.TunnelStatus) bool { return u.State == "up" && (u.BFD == "" || u.BFD == "up") }

// silent is how many tunnels do not work, according to OVS.
func (r report) silent() int {
	n := 0
	for _, u := range r.Tunnels {
		if !carries(u) {
			n++
		}
	}
	return n
}

func (r report) tunnels(c *call, t *table) []string {
	return rows(c, t, "tunnel", r.Tunnels, carries, func(u ovs.TunnelStatus) []string {
		extra := ""
		if u.BFD != "" {
			extra = "bfd " + u.BFD + " " + u.Diagnostic
		}
		to := "all peers"
		if u.Remote.IsValid() {
			to = fmt.Sprintf("%s (%s)", oneLine(u.Peer), u.Remote)
		}
		return []string{u.Name, u.State, u.Type + " to " + to, oneLine(extra + " " + u.Error)}
	})
}

// wireGuard adds the peers of an encrypted network. A peer without a session has been idle,
// which is no problem.
func (r report) wireGuard(c *call, t *table) []string {
	return rows(c, t, "peer", r.WireGuard, func(p wireGuardPeer) bool { return p.State != "no key" }, func(p wireGuardPeer) []string {
		return []string{oneLine(p.Peer), p.State, p.Address.String(), p.age}
	})
}

func (r report) routeRows(c *call, t *table) []string {
	return rows(c, t, "route", r.Routes, func(rt route) bool { return rt.State == "ok" }, func(rt route) []string {
		way := rt.Command
		if !c.verbose {
			way = strings.TrimPrefix(way, "ip route replace "+rt.Destination+" ")
		}
		return []string{rt.Destination, rt.State, way}
	})
}

func (r report) containerRows(c *call, t *table) []string {
	well := func(k container) bool { return k.State == stateAttached || k.State == stateBusy }
	return rows(c, t, "container", r.Containers, well, func(k container) []string {
		return []string{k.Port, k.State, oneLine(k.ContainerID) + " " + oneLine(k.IfName)}
	})
}

func (l *link) row(t *table, what string) {
	switch {
	case l == nil:
	case l.State == "missing":
		t.add(what, l.Name, "missing")
	default:
		text := fmt.Sprintf("%s mtu %d", l.MAC, l.MTU)
		if l.Datapath != "" {
			text += " datapath " + l.Datapath
		}
		t.add(what, l.Name, l.State, text)
	}
}
