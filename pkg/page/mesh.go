package page

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/probe"
)

// An Edge has a host's measurements to one peer.
type Edge struct {
	// To is the peer's name.
	To string `json:"to"`
	// Tunnel is the tunnel's state as in ovs.TunnelStatus: up, down or error; "" where
	// there is no tunnel for this peer alone.
	Tunnel string `json:"tunnel,omitempty"`
	// Sent and Lost count the last echo requests to the peer's gateway, up to
	// probe.Window. Sent is 0 where nothing was measured.
	Sent int `json:"sent"`
	Lost int `json:"lost"`
	// RTT is the median round trip in milliseconds; 0 where none was answered.
	RTT float64 `json:"rttMilliseconds"`
	// Silent: the last three requests were not answered.
	Silent bool `json:"silent,omitempty"`
}

// A Row has one host's measurements to all its peers.
type Row struct {
	Network string `json:"network"`
	Host    string `json:"host"`
	Edges   []Edge `json:"edges"`
}

// NewRow makes the row of a host from the states of its tunnels and the results of its probes,
// by peer.
func NewRow(network, host string, peers []config.Node, tunnels []ovs.TunnelStatus, measured map[string]probe.Result) Row {
	states := make(map[string]string, len(tunnels))
	for _, t := range tunnels {
		states[t.Peer] = t.State
	}
	r := Row{Network: network, Host: host, Edges: make([]Edge, 0, len(peers))}
	for _, p := range peers {
		m := measured[p.Name]
		r.Edges = append(r.Edges, Edge{p.Name, states[p.Name], m.Sent, m.Lost, float64(m.RTT) / float64(time.Millisecond), m.Silent})
	}
	return r
}

// A Mesh is a network with the known measurements between its hosts.
type Mesh struct {
	Network string
	// Self is the name of this host, Hosts are all.
	Self  string
	Hosts []config.Node
	// Rows are the known rows, by the names of their hosts.
	Rows map[string]Row
	// Unlisted are the peers where no list has them, such as "the hosts in
	// 172.16.0.0/16"; "" where Hosts has them.
	Unlisted string
}

// A grade tells how good an edge is; the greater, the worse.
type grade int

const (
	unknown grade = iota // not measured
	good
	slow   // good, but the round trip is more than slowFactor times the mesh's median
	slower // the same with slowerFactor
	lossy  // some of the last requests were lost
	dead   // none of the last requests was answered, or OVS has no tunnel
)

// slowFactor and slowerFactor are multiples of the mesh's median round trip.
const slowFactor, slowerFactor = 1.5, 3

// class is the grade's class in the style sheets.
func (g grade) class() string {
	return [...]string{"unknown", "good", "slow", "slower", "lossy", "dead"}[g]
}

func (e Edge) grade() grade {
	switch {
	case e.Tunnel == "down" || e.Tunnel == "error" || e.Silent || e.Sent > 0 && e.Lost >= e.Sent:
		return dead
	case e.Lost > 0:
		return lossy
	case e.Sent > 0:
		return good
	}
	return unknown
}

// loss is the loss in percent.
func (e Edge) loss() float64 {
	if e.Sent <= 0 {
		return 0
	}
	return 100 * float64(min(max(e.Lost, 0), e.Sent)) / float64(e.Sent)
}

// A grid is a mesh as a matrix.
type grid struct {
	*Mesh
	// rows has the edges of host i to all hosts in row i; nil where its row is not
	// known. Of thousands of hosts few are.
	rows [][]Edge
	// median is that of all round trips, in milliseconds; 0 where there is none.
	median float64
}

func newGrid(m *Mesh) grid {
	at := make(map[string]int, len(m.Hosts))
	for i, h := range m.Hosts {
		at[h.Name] = i
	}
	g := grid{Mesh: m, rows: make([][]Edge, len(m.Hosts))}
	var trips []float64
	for i, h := range m.Hosts {
		row, known := m.Rows[h.Name]
		if !known {
			continue
		}
		g.rows[i] = make([]Edge, len(m.Hosts))
		for _, e := range row.Edges {
			if j, ok := at[e.To]; ok && j != i {
				g.rows[i][j] = e
				if e.RTT > 0 {
					trips = append(trips, e.RTT)
				}
			}
		}
	}
	if len(trips) > 0 {
		slices.Sort(trips)
		g.median = trips[len(trips)/2]
	}
	return g
}

// edge is the edge from host i to host j; zero where it is not known, and from a host to
// itself.
func (g grid) edge(i, j int) Edge {
	if g.rows[i] == nil {
		return Edge{}
	}
	return g.rows[i][j]
}

// known yields the pairs of hosts of which at least one has told its row, each once.
func (g grid) known(yield func(i, j int) bool) {
	for i, row := range g.rows {
		if row == nil {
			continue
		}
		for j := range g.rows {
			if j != i && (j < i || g.rows[j] == nil) && !yield(i, j) {
				return
			}
		}
	}
}

// grade is the grade of an edge in comparison with the others.
func (g grid) grade(e Edge) grade {
	switch gr := e.grade(); {
	case gr != good:
		return gr
	case e.RTT > slowerFactor*g.median:
		return slower
	case e.RTT > slowFactor*g.median:
		return slow
	default:
		return good
	}
}

// both is the worse of the two edges between two hosts.
func (g grid) both(i, j int) Edge {
	a, b := g.edge(i, j), g.edge(j, i)
	return slices.MaxFunc([]Edge{a, b}, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.grade(), b.grade()), cmp.Compare(a.loss(), b.loss()), cmp.Compare(a.RTT, b.RTT))
	})
}

// A culprit is a host with the number of its bad edges that are not another culprit's.
type culprit struct {
	host, bad int
	// peer is the other end if there is one bad edge.
	peer int
}

// words describe a culprit in a line.
func (g grid) words(u culprit) string {
	name := g.Hosts[u.host].Name
	if u.bad > 1 {
		return fmt.Sprintf("%s: %d of %d edges are bad", name, u.bad, len(g.Hosts)-1)
	}
	e := g.both(u.host, u.peer)
	if e.grade() == lossy {
		return fmt.Sprintf("%s – %s: %.0f %% lost", name, g.Hosts[u.peer].Name, e.loss())
	}
	return fmt.Sprintf("%s – %s: unreachable", name, g.Hosts[u.peer].Name)
}

// culprits are few hosts that all bad edges have an end at, those with the most bad edges first.
// If one host is down, it alone is listed and not all others.
func (g grid) culprits(most int) []culprit {
	// bad are the other ends of each host's bad edges.
	bad, count := make([][]int, len(g.Hosts)), make([]int, len(g.Hosts))
	for i, j := range g.known {
		if g.both(i, j).grade() >= lossy {
			bad[i], bad[j] = append(bad[i], j), append(bad[j], i)
			count[i]++
			count[j]++
		}
	}
	var list []culprit
	listed := make([]bool, len(g.Hosts))
	for len(count) > 0 && len(list) < most {
		worst := slices.Index(count, slices.Max(count))
		if count[worst] == 0 {
			break
		}
		left := slices.DeleteFunc(bad[worst], func(j int) bool { return listed[j] })
		list = append(list, culprit{worst, count[worst], slices.Min(left)})
		for _, j := range left {
			count[j]--
		}
		count[worst], listed[worst] = 0, true
	}
	return list
}

// tally counts the pairs of hosts by the grades of their worse edge.
func (g grid) tally() (by [dead + 1]int) {
	told := 0
	for i, j := range g.known {
		by[g.grade(g.both(i, j))]++
		told++
	}
	n := len(g.Hosts)
	by[unknown] += n*(n-1)/2 - told
	return by
}

// told is the number of known rows.
func (m *Mesh) told() int { return len(m.Rows) }

// mute are the hosts whose rows are not known.
func (m *Mesh) mute() []string {
	var names []string
	for _, h := range m.Hosts {
		if _, ok := m.Rows[h.Name]; !ok {
			names = append(names, h.Name)
		}
	}
	return names
}

// sortHosts sorts the hosts by their names; see natural.
func (m *Mesh) sortHosts() {
	slices.SortFunc(m.Hosts, func(a, b config.Node) int { return natural(a.Name, b.Name) })
}

// natural compares names with the numbers in them by value: host9 before host10.
func natural(a, b string) int {
	digits := func(s string) int {
		for i, c := range s {
			if c < '0' || c > '9' {
				return i
			}
		}
		return len(s)
	}
	for a != "" && b != "" {
		m, n := digits(a), digits(b)
		if m > 0 && n > 0 {
			if c := cmp.Or(cmp.Compare(m, n), cmp.Compare(a[:m], b[:n])); c != 0 {
				return c
			}
			a, b = a[m:], b[n:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}
