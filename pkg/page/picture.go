package page

import (
	_ "embed"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

const (
	// graphMost is up to how many hosts the picture is a graph: 15 edges can be told apart.
	graphMost = 6
	// textMost is up to how many hosts the cells of a matrix have numbers.
	textMost = 36
)

// style is the style sheet of the picture. It is in the picture, so that this is light or dark as
// the browser is also as an image of another page.
//
//go:embed mesh.css
var style string

// A canvas is a buffer of SVG.
type canvas struct{ markup }

// put writes elements and a newline.
func (c *canvas) put(format string, args ...any) { c.markup.put(format+"\n", args...) }

// rect writes a rectangle of a class.
func (c *canvas) rect(class string, x, y, width, height, radius float64) {
	c.put(`<rect class="%s" x="%g" y="%g" width="%g" height="%g" rx="%g"/>`, class, round(x), round(y), round(width), height, radius)
}

// text writes a text of a class whose anchor, its start, middle or end, is at x.
func (c *canvas) text(class, anchor string, x, y float64, text string) {
	if text == "" {
		return
	}
	c.put(`<text class="%s" text-anchor="%s" x="%g" y="%g">%s</text>`, class, anchor, round(x), round(y), text)
}

// Anchors of a text.
const (
	start  = "start"
	middle = "middle"
	end    = "end"
)

// titled writes the elements of draw as a group with a title, which browsers show as a tooltip.
func (c *canvas) titled(title string, draw func()) {
	c.put(`<g><title>%s</title>`, title)
	draw()
	c.put(`</g>`)
}

// round rounds to a tenth of a pixel.
func round(x float64) float64 { return math.Round(10*x) / 10 }

// WriteSVG writes the mesh as an SVG document.
func (m *Mesh) WriteSVG(w io.Writer) error {
	_, err := io.WriteString(w, m.svg())
	return err
}

func (m *Mesh) svg() string {
	m.sortHosts()
	g := newGrid(m)
	var body canvas
	var width, height float64
	switch n := len(m.Hosts); {
	case n <= graphMost:
		width, height = g.graph(&body)
	case m.told() <= 1:
		width, height = g.tiles(&body)
	default:
		width, height = g.matrix(&body)
	}
	const head, foot = 64, 34
	width = max(width, 720)
	var c canvas
	c.put(`<svg xmlns="http://www.w3.org/2000/svg" class="mesh" role="img" aria-label="%s"`, g.summary())
	c.put(`viewBox="0 0 %[1]g %[2]g" width="%[1]g" height="%[2]g">`, round(width), round(head+height+foot))
	c.put("<style>" + style + "</style>")
	c.put(`<rect class="back" width="100%%" height="100%%"/>`)
	c.text("title", start, 16, 26, "network "+m.Network)
	c.text("dim", start, 16, 46, g.summary())
	c.put(`<g transform="translate(0 %d)">`, head)
	c.WriteString(body.String())
	c.put(`</g>`)
	g.legend(&c, head+height+foot-14)
	c.put(`</svg>`)
	return c.String()
}

// legend writes the meaning of the colours that occur.
func (g grid) legend(c *canvas, y float64) {
	x := 16.0
	answered := "all answered"
	by := g.tally()
	if by[slow]+by[slower] > 0 {
		answered += fmt.Sprintf(", in up to %s ms", milliseconds(slowFactor*g.median))
	}
	for _, e := range []struct {
		grade
		text string
	}{
		{good, answered}, {slow, fmt.Sprintf("up to %s ms", milliseconds(slowerFactor*g.median))}, {slower, "slower"},
		{lossy, "some lost"}, {dead, "unreachable"}, {unknown, "not measured"},
	} {
		if by[e.grade] == 0 && (e.grade != unknown || len(g.mute()) == 0) {
			continue
		}
		class := e.class()
		if e.grade == good && len(g.Hosts) <= graphMost {
			class = "wire"
		}
		c.rect("cell "+class, x, y-10, 12, 12, 3)
		c.text("dim", start, x+18, y, e.text)
		x += 36 + 7*float64(len(e.text))
	}
}

// summary describes the mesh in a line.
func (g grid) summary() string {
	if g.Unlisted != "" {
		return "this host, its peers are " + g.Unlisted + ", of which nobody has a list"
	}
	n := len(g.Hosts)
	by := g.tally()
	total := n * (n - 1) / 2
	parts := []string{plural(n, "host"), plural(total, "edge")}
	if by[good]+by[slow]+by[slower] == total && total > 0 {
		parts = append(parts, "all answered")
	}
	if by[lossy] > 0 {
		parts = append(parts, fmt.Sprintf("%d with loss", by[lossy]))
	}
	if by[dead] > 0 {
		parts = append(parts, fmt.Sprintf("%d unreachable", by[dead]))
	}
	if by[unknown] > 0 {
		parts = append(parts, fmt.Sprintf("%d not measured", by[unknown]))
	}
	if g.median > 0 {
		parts = append(parts, "median round trip "+milliseconds(g.median)+" ms")
	}
	return strings.Join(parts, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// text is an edge in a few characters.
func (e Edge) text() string {
	switch e.grade() {
	case unknown:
		return ""
	case dead:
		return "✕"
	case lossy:
		return fmt.Sprintf("%.0f %%", e.loss())
	}
	return milliseconds(e.RTT)
}

// sentence is an edge in words.
func (e Edge) sentence() string {
	var parts []string
	if e.Tunnel != "" && e.Tunnel != "up" {
		parts = append(parts, "tunnel "+e.Tunnel)
	}
	if e.Sent > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d lost", e.Lost, e.Sent))
	}
	if e.RTT > 0 {
		parts = append(parts, milliseconds(e.RTT)+" ms")
	}
	if len(parts) == 0 {
		return "not measured"
	}
	return strings.Join(parts, ", ")
}

// milliseconds formats a time with two significant digits.
func milliseconds(ms float64) string {
	switch {
	case ms < 1:
		return fmt.Sprintf("%.2f", ms)
	case ms < 10:
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

// short cuts a name to most characters; the titles have the whole one.
func short(name string, most int) string {
	r := []rune(name)
	if len(r) <= most {
		return name
	}
	return string(r[:most-1]) + "…"
}
