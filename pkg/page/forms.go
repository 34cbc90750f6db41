package page

import (
	"fmt"
	"math"
	"strings"

	"ovs-gre-cni/pkg/config"
)

// boxWidth and boxHeight are the size of a host's box in a graph.
const boxWidth, boxHeight = 160.0, 56.0

// place is where the middle of each host's box is: on an ellipse, from the top.
func (g grid) place() (at func(i int) (x, y float64), width, height float64) {
	n := len(g.Hosts)
	high := map[int]float64{1: 0, 2: 120, 3: 130, 4: 150, 5: 185}[n]
	if n > 5 {
		high = 215
	}
	wide := high*1.15 + 60
	width, height = 2*wide+boxWidth+40, 2*high+boxHeight+20
	if n == 3 {
		height -= high / 2 // a triangle has no lowest point
	}
	width = max(width, 720)
	return func(i int) (x, y float64) {
		angle := 2*math.Pi*float64(i)/float64(n) - math.Pi/2
		return width/2 + wide*math.Cos(angle), high + boxHeight/2 + 6 + high*math.Sin(angle)
	}, width, height
}

// graph draws a box for each host and a line between each two of them.
func (g grid) graph(c *canvas) (width, height float64) {
	at, width, height := g.place()
	for i := range g.Hosts {
		for j := range i {
			x1, y1 := at(i)
			x2, y2 := at(j)
			class := "edge " + g.grade(g.both(i, j)).class()
			c.titled(g.title(i, j), func() { c.line(class, x1, y1, x2, y2) })
		}
	}
	for i := range g.Hosts {
		for j := range i {
			g.label(c, i, j, at)
		}
	}
	for i, h := range g.Hosts {
		x, y := at(i)
		class := "box"
		if h.Name == g.Self {
			class = "box self"
		}
		c.titled(h.Name+" "+subnets(h), func() {
			c.rect(class, x-boxWidth/2, y-boxHeight/2, boxWidth, boxHeight, 8)
			c.text("name", middle, x, y-9, short(h.Name, 20))
			c.text("small dim", middle, x, y+6, h.Address.String())
			c.text("small dim", middle, x, y+20, short(subnets(h), 26))
		})
	}
	return width, height
}

// line writes a line of a class.
func (c *canvas) line(class string, x1, y1, x2, y2 float64) {
	c.put(`<line class="%s" x1="%g" y1="%g" x2="%g" y2="%g"/>`, class, round(x1), round(y1), round(x2), round(y2))
}

func subnets(n config.Node) string {
	list := make([]string, len(n.Subnets))
	for i, s := range n.Subnets {
		list[i] = s.String()
	}
	return strings.Join(list, " ")
}

// label writes the measurement of an edge of the graph. On long edges it is not in the middle,
// where these cross.
func (g grid) label(c *canvas, i, j int, at func(int) (float64, float64)) {
	e := g.both(i, j)
	text := e.text()
	switch {
	case text == "":
		return
	case e.grade() == lossy:
		text += " lost"
	case e.grade() == dead:
		text = "unreachable"
	default:
		text += " ms"
	}
	x1, y1 := at(i)
	x2, y2 := at(j)
	t, n := 0.5, len(g.Hosts)
	switch d := min(i-j, n-(i-j)); {
	case d == 2 && n > 4:
		t = 0.62
	case d > 1:
		t = 0.34
	}
	x, y := x1+(x2-x1)*t, y1+(y2-y1)*t
	half := 2.9*float64(len([]rune(text))) + 5
	c.rect("halo", x-half, y-8, 2*half, 16, 4)
	c.text("small", middle, x, y+4, text)
}

// title is both directions of an edge in words.
func (g grid) title(i, j int) string {
	a, b := g.Hosts[i].Name, g.Hosts[j].Name
	return fmt.Sprintf("%s to %s: %s; %s to %s: %s", a, b, g.edge(i, j).sentence(), b, a, g.edge(j, i).sentence())
}

// tiles draws a tile for each peer of the one host whose row is known.
func (g grid) tiles(c *canvas) (width, height float64) {
	const columns, tileWidth, tileHeight, gap = 10, 104.0, 38.0, 6.0
	from := 0
	for i, h := range g.Hosts {
		if len(g.Rows[h.Name].Edges) > 0 {
			from = i
		}
	}
	k := 0
	for j, h := range g.Hosts {
		if j == from {
			continue
		}
		e := g.edge(from, j)
		x, y := 16+float64(k%columns)*(tileWidth+gap), float64(k/columns)*(tileHeight+gap)
		text, width := e.text(), 5.0
		switch e.grade() {
		case good:
			text += " ms"
		case lossy, dead:
			width = tileWidth // the whole tile, to be visible among hundreds
			text = map[grade]string{lossy: text + " lost", dead: "unreachable"}[e.grade()]
		}
		class := e.grade().class()
		c.titled(h.Name+": "+e.sentence(), func() {
			c.rect("box", x, y, tileWidth, tileHeight, 5)
			c.rect("cell "+g.grade(e).class(), x, y, width, tileHeight, 2)
			c.text("in "+class, start, x+12, y+15, short(h.Name, 15))
			c.text("in "+class, start, x+12, y+30, text)
		})
		k++
	}
	rows := (k + columns - 1) / columns
	return 32 + columns*(tileWidth+gap), float64(rows) * (tileHeight + gap)
}

// matrix draws a cell for each edge and direction: from the row's host to the column's.
func (g grid) matrix(c *canvas) (width, height float64) {
	n := len(g.Hosts)
	if n <= textMost {
		return g.figures(c)
	}
	side := math.Max(2, math.Floor(900/float64(n)))
	const left, top = 150.0, 34.0
	square := side * float64(n)
	c.text("small dim", start, 16, top-6, "from ↓ to →")
	// There is one path for each grade, with a rectangle for each run of equal cells: a
	// mesh of 300 hosts has 90,000 cells.
	var paths [dead + 1]strings.Builder
	for i := range n {
		for from := 0; from < n; {
			gr := g.at(i, from)
			to := from + 1
			for to < n && g.at(i, to) == gr {
				to++
			}
			length := side * float64(to-from)
			fmt.Fprintf(&paths[gr], "M%g %gh%gv%gh%gz", left+side*float64(from), top+side*float64(i), length, side, -length)
			from = to
		}
	}
	for gr := range paths {
		if paths[gr].Len() > 0 {
			c.put(`<path class="%s" shape-rendering="crispEdges" d="%s"/>`, "cell "+grade(gr).class(), paths[gr].String())
		}
	}
	ticks := func(k int) {
		x, y := left+side*float64(k)+side/2, top+side*float64(k)+side/2
		c.line("tick", x, top-5, x, top-1)
		c.text("small dim", middle, x, top-9, short(g.Hosts[k].Name, 14))
		c.line("tick", left-5, y, left-1, y)
		c.text("small dim", end, left-8, y+4, short(g.Hosts[k].Name, 20))
	}
	for k := 0; k < n; k += max(1, int(90/side)) {
		ticks(k)
	}
	g.blame(c, left+square+24, top, square)
	return left + square + 280, top + square + 8
}

// at is the grade of a cell. A host's cell to itself has the grade of the one beside it, so that
// runs are long.
func (g grid) at(i, j int) grade {
	if i == j {
		if j+1 < len(g.Hosts) {
			return g.grade(g.edge(i, j+1))
		}
		return g.grade(g.edge(i, j-1))
	}
	return g.grade(g.edge(i, j))
}

// blame writes the hosts that bad edges have in common beside the matrix.
func (g grid) blame(c *canvas, x, top, square float64) {
	most := int(square/18) - 2
	list := g.culprits(min(most, 24))
	if len(list) == 0 {
		return
	}
	c.text("name", start, x, top+12, "What bad edges have in common")
	for k, u := range list {
		c.text("", start, x, top+34+18*float64(k), short(g.words(u), 36))
	}
}

// figures draws a matrix whose cells have room for a number.
func (g grid) figures(c *canvas) (width, height float64) {
	const cellWidth, cellHeight, left = 36.0, 22.0, 130.0
	n, top := len(g.Hosts), 24.0
	for _, h := range g.Hosts {
		top = max(top, 14+5*float64(min(len(h.Name), 17)))
	}
	for k, h := range g.Hosts {
		x, y := left+cellWidth*float64(k)+cellWidth/2, top+cellHeight*float64(k)+15
		c.put(`<g transform="rotate(-50 %[1]g %[2]g)">`, x+2, top-6)
		c.text("small", start, x+2, top-6, short(h.Name, 17))
		c.put(`</g>`)
		class := "small"
		if h.Name == g.Self {
			class = "small name"
		}
		c.text(class, end, left-8, y, short(h.Name, 18))
	}
	c.text("small dim", start, 16, top-8, "from ↓ to →, ms")
	for i := range n {
		for j := range n {
			if i == j {
				continue
			}
			e := g.edge(i, j)
			x, y := left+cellWidth*float64(j), top+cellHeight*float64(i)
			c.titled(g.Hosts[i].Name+" to "+g.Hosts[j].Name+": "+e.sentence(), func() {
				c.rect("cell "+g.grade(e).class(), x+1, y+1, cellWidth-2, cellHeight-2, 3)
				c.text("in "+e.grade().class(), middle, x+cellWidth/2, y+15, e.text())
			})
		}
	}
	return left + cellWidth*float64(n) + 90, top + cellHeight*float64(n) + 10
}
