package page

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"ovs-gre-cni/pkg/config"
)

// A View is the content of the page.
type View struct {
	// Mesh is the network in the picture; nil is none yet.
	Mesh *Mesh
	// Networks are those of this host, as Look returns them.
	Networks []Network
	// Version is the agent's version.
	Version string
	// At is when the view was made.
	At time.Time
	// Problems are sentences about what the agent cannot do.
	Problems []string
}

// hostsMost is how many hosts the page lists; the others are folded.
const hostsMost = 20

// A hostLine is a host in the page's table.
type hostLine struct {
	Name, Address, Subnets string
	Self                   bool
	// State is the class of the edge to the host, Words and Back are its two
	// directions as text.
	State, Words, Back string
	worse              grade
}

// content is a View prepared for writing.
type content struct {
	*View
	// Problems are the view's and the networks'.
	Problems      []string
	Host, Summary string
	Hosts, More   []hostLine
	Culprits      []string
	// Mute is a text about the hosts whose rows are not known; "" is none.
	Mute  string
	Drift []Drift
	Bad   bool
}

// WriteHTML writes the page.
func (v *View) WriteHTML(w io.Writer) error {
	c := v.content()
	var p markup
	c.putHead(&p)
	c.putProblems(&p)
	c.putPicture(&p)
	c.putHosts(&p)
	c.putNetworks(&p)
	c.putContainers(&p)
	p.put("</main>\n</body>\n</html>\n")
	_, err := io.WriteString(w, p.String())
	return err
}

// content prepares the view for writing.
func (v *View) content() content {
	c := content{View: v, Problems: slices.Clone(v.Problems)}
	for _, n := range v.Networks {
		for _, text := range n.Errors {
			c.Problems = append(c.Problems, "network "+n.Name+": "+text)
		}
		c.Drift = append(c.Drift, n.Drift...)
	}
	if v.Mesh != nil {
		v.Mesh.sortHosts()
		c.Host = v.Mesh.Self
		g := newGrid(v.Mesh)
		c.Summary = g.summary()
		c.Hosts = g.lines()
		for _, u := range g.culprits(10) {
			c.Culprits = append(c.Culprits, g.words(u))
		}
		c.Mute = muteText(v.Mesh)
		if len(c.Hosts) > hostsMost+5 {
			c.Hosts, c.More = c.Hosts[:hostsMost], c.Hosts[hostsMost:]
		}
	}
	c.Bad = len(c.Problems)+len(c.Drift)+len(c.Culprits) > 0
	return c
}

// muteText is a text about the hosts whose rows are not known; "" is none.
func muteText(m *Mesh) string {
	names := m.mute()
	if len(names) == 0 {
		return ""
	}
	if len(m.Hosts)-1 > AskMost {
		return fmt.Sprintf("No measurements of other hosts: of more than %d none is asked", AskMost)
	}
	text := "No measurements of " + plural(len(names), "host") + ", where no agent runs or its port is not reached: "
	if more := len(names) - 5; more > 1 {
		names = append(names[:5], plural(more, "other"))
	}
	return text + strings.Join(names, ", ")
}

// lines are the hosts: this one first, then the others by the grade of their edges, the worst
// first.
func (g grid) lines() []hostLine {
	self := slices.IndexFunc(g.Hosts, func(n config.Node) bool { return n.Name == g.Self })
	var list []hostLine
	for j, h := range g.Hosts {
		l := hostLine{Name: h.Name, Address: h.Address.String(), Subnets: subnets(h), Self: j == self}
		if self >= 0 && !l.Self {
			l.worse = g.both(self, j).grade()
			l.State = l.worse.class()
			l.Words, l.Back = g.edge(self, j).sentence(), g.edge(j, self).sentence()
		}
		list = append(list, l)
	}
	slices.SortStableFunc(list, func(a, b hostLine) int {
		if a.Self != b.Self {
			return map[bool]int{true: -1, false: 1}[a.Self]
		}
		return cmp.Compare(b.worse, a.worse)
	})
	return list
}

// Policy is the Content-Security-Policy to serve the page with: it allows no script and loads
// nothing.
const Policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
