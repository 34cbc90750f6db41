package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// text prints the report for a person.
func (r report) text(w io.Writer) {
	kept := "goes with its last container"
	if r.Persistent {
		kept = "persistent"
	}
	fmt.Fprintf(w, "network %s  %s\n", r.Network, r.File)
	fmt.Fprintf(w, "  node %s (%s), %d peers, %s\n", oneLine(r.Node), r.Address, r.Peers, kept)
	var table strings.Builder
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	r.Bridge.text(t, "bridge")
	if len(r.WireGuard) > 0 {
		r.Transit.text(t, "wireguard")
	} else {
		r.Transit.text(t, "transit")
	}
	for _, u := range r.Tunnels {
		extra := ""
		if u.BFD != "" {
			extra = "bfd " + u.BFD + " " + u.Diagnostic
		}
		to := "all peers"
		if u.Remote.IsValid() {
			to = fmt.Sprintf("%s (%s)", oneLine(u.Peer), u.Remote)
		}
		fmt.Fprintf(t, "  tunnel\t%s\t%s\t%s to %s\t%s\n", u.Name, u.State, u.Type, to, oneLine(extra+" "+u.Error))
	}
	for _, p := range r.WireGuard {
		fmt.Fprintf(t, "  peer\t%s\t%s\t%s\t%s\n", oneLine(p.Peer), p.State, p.Address, p.age)
	}
	for _, rt := range r.Routes {
		fmt.Fprintf(t, "  route\t%s\t%s\t%s\t\n", rt.Destination, rt.State, rt.Command)
	}
	for _, c := range r.Containers {
		fmt.Fprintf(t, "  container\t%s\t%s\t%s %s\t\n", c.Port, c.State, oneLine(c.ContainerID), oneLine(c.IfName))
	}
	_ = t.Flush() // a strings.Builder takes all
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
	for _, s := range r.Notes {
		fmt.Fprintln(w, "  note:", s)
	}
	for _, s := range r.Drift {
		fmt.Fprintln(w, "  DRIFT:", s)
	}
	for _, s := range r.Errors {
		fmt.Fprintln(w, "  ERROR:", s)
	}
	if len(r.Drift)+len(r.Errors) == 0 {
		fmt.Fprintln(w, "  as it should be")
	}
}

func (l *link) text(w io.Writer, what string) {
	if l == nil {
		return
	}
	datapath := ""
	if l.Datapath != "" {
		datapath = "datapath " + l.Datapath
	}
	if l.State == "missing" {
		fmt.Fprintf(w, "  %s\t%s\tmissing\t\t\n", what, l.Name)
		return
	}
	fmt.Fprintf(w, "  %s\t%s\t%s\t%s mtu %d\t%s\n", what, l.Name, l.State, l.MAC, l.MTU, datapath)
}
