package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/page"
)

// widest is how many hosts the square has a column for each of: what fits on a
// screen.
const widest = 12

// An agentRow is what a peer's agent has measured through its tunnels.
type agentRow struct {
	Node string `json:"node"`
	// Error is why there is nothing of it; "" is nothing.
	Error string      `json:"error,omitempty"`
	Peers []agentEdge `json:"peers"`
}

// An agentEdge is how the last echo requests went, at most probe.Window.
type agentEdge struct {
	Peer string `json:"peer"`
	// Sent is 0 where nothing has been measured.
	Sent int `json:"sent"`
	Lost int `json:"lost"`
	// RTT is the median round trip in milliseconds; 0 where none was answered.
	RTT float64 `json:"rttMs"`
	// Silent: the last three were not answered.
	Silent bool `json:"silent"`
}

func newAgentRow(node string, t page.Told) agentRow {
	a := agentRow{Node: node, Peers: []agentEdge{}}
	if t.Err != nil {
		a.Error = noAnswer(t.Err)
		return a
	}
	for _, e := range t.Row.Edges { // another host's words
		sent := max(e.Sent, 0)
		a.Peers = append(a.Peers, agentEdge{e.To, sent, min(max(e.Lost, 0), sent), e.RTT, e.Silent})
	}
	return a
}

// noAnswer says in few words why an agent has told nothing.
func noAnswer(err error) string {
	var late net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Sprintf("no agent listens on port %d", page.Port)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return fmt.Sprintf("no answer from port %d in time", page.Port)
	}
	return oneLine(err.Error())
}

// silent reports whether a peer has measured that somebody does not answer it.
func (a agentRow) silent() bool {
	return slices.ContainsFunc(a.Peers, func(e agentEdge) bool { return e.Silent })
}

// square prints what every host has measured through its tunnels: this one now,
// the others by their agents, of late.
func (r row) square(c *call, w io.Writer) {
	if len(r.Agents) == 0 {
		return
	}
	fmt.Fprintln(w, "\n  through the tunnels, from each host (row) to each: ms, or what is lost")
	if len(r.Agents)+1 > widest {
		r.tall(c, w)
		return
	}
	names := []string{r.Node}
	for _, a := range r.Agents {
		names = append(names, a.Node)
	}
	t := table{indent: "  "}
	t.add(append([]string{"from"}, printable(names)...)...)
	own := []string{oneLine(r.Node), "-"}
	for _, e := range r.Peers {
		own = append(own, r.ownCell(e.Peer))
	}
	t.add(own...)
	var mute []string
	for i, a := range r.Agents {
		if a.Error != "" {
			mute = append(mute, oneLine(a.Node)+": "+a.Error)
		}
		cells := []string{oneLine(a.Node)}
		for j, to := range names {
			if j == i+1 {
				cells = append(cells, "-")
				continue
			}
			cells = append(cells, a.cell(to))
		}
		t.add(cells...)
	}
	t.paint = func(row, column int) string {
		cell := t.rows[row][column]
		switch {
		case row == 0:
			return bold
		case column > 0 && len(cell) > 0 && cell[len(cell)-1] == '%':
			return red
		}
		return ""
	}
	t.print(c, w)
	for _, m := range mute {
		fmt.Fprintln(w, "  "+m)
	}
}

// tall is the square of many hosts: a line for each, with what is not well first.
func (r row) tall(c *call, w io.Writer) {
	t := table{indent: "  "}
	answered, shown := 0, 0
	for _, a := range r.Agents {
		if a.Error == "" {
			answered++
		}
		bad := 0
		worst := ""
		for _, e := range a.Peers {
			if e.Lost > 0 {
				if bad++; worst == "" {
					worst = oneLine(e.Peer) + " " + a.cell(e.Peer)
				}
			}
		}
		if !c.verbose && (bad == 0 && a.Error == "" || shown == listed) {
			continue
		}
		shown++
		switch {
		case a.Error != "":
			t.add(oneLine(a.Node), a.Error)
		case bad == 0:
			t.add(oneLine(a.Node), fmt.Sprintf("%d peers answer everything", len(a.Peers)))
		default:
			t.add(oneLine(a.Node), fmt.Sprintf("loses packets to %d of %d peers: %s, ...", bad, len(a.Peers), worst))
		}
	}
	t.print(c, w)
	fmt.Fprintf(w, "  %d of %d agents answer (-v lists all)\n", answered, len(r.Agents))
}

// ownCell is what this host has measured now.
func (r row) ownCell(peer string) string {
	for _, e := range r.Peers {
		if e.Peer == peer && e.Tunnel != nil {
			if lost := e.Tunnel.Lost(); lost > 0 {
				return strconv.Itoa(lost) + " %"
			}
			return strconv.FormatFloat(e.Tunnel.RTT, 'f', 2, 64)
		}
	}
	return "?"
}

// cell is what an agent has measured of late; "?" is nothing.
func (a agentRow) cell(to string) string {
	for _, e := range a.Peers {
		switch {
		case e.Peer != to:
		case e.Sent == 0:
			return "?"
		case e.Lost > 0:
			return strconv.Itoa(100*e.Lost/e.Sent) + " %"
		default:
			return strconv.FormatFloat(e.RTT, 'f', 2, 64)
		}
	}
	return "?"
}

func printable(names []string) []string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = oneLine(n)
	}
	return list
}
