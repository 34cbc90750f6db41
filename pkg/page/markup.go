package page

import (
	"cmp"
	_ "embed"
	"fmt"
	"html"
	"strings"
)

// A markup is a buffer of HTML or SVG. html/template is not used: it calls methods by their
// names, so that the linker keeps all methods of all types, which makes ovs-gre-agent 20 MB
// larger.
type markup struct{ strings.Builder }

// put writes a constant format with args. All args but numbers are escaped for text between
// tags and in quoted values of attributes.
func (m *markup) put(format string, args ...any) {
	for i, a := range args {
		switch a.(type) {
		case int, float64:
		default:
			args[i] = html.EscapeString(fmt.Sprint(a))
		}
	}
	fmt.Fprintf(m, format, args...)
}

//go:embed page.css
var pageStyle string

// putHead writes the page up to the end of its header.
func (c *content) putHead(p *markup) {
	mark, badge, words := "✓", "badge", "as it should be"
	if c.Bad {
		mark, badge, words = "✕", "badge dead", "something is wrong"
	}
	p.put(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="15">
<title>%s %s · ovs-gre</title>
`, mark, c.Host)
	p.WriteString("<style>\n" + pageStyle + "</style>\n")
	p.put(`</head>
<body>
<main>
<header>
<h1>%s</h1>
<span class="%s">%s</span>
<span class="dim">%s</span>
<small style="margin-left:auto">ovs-gre-agent %s · %s · every 15 s</small>
</header>
`, cmp.Or(c.Host, "ovs-gre"), badge, words, c.Summary, c.Version, c.At.Format("2006-01-02 15:04:05 MST"))
}

// putProblems writes the problems and differences, if there are any.
func (c *content) putProblems(p *markup) {
	if !c.Bad {
		return
	}
	p.put("<h2>What is wrong</h2>\n<ul class=\"wrong\">\n")
	for _, list := range [][]string{c.Problems, c.Culprits} {
		for _, text := range list {
			p.put("<li>%s</li>\n", text)
		}
	}
	for _, d := range c.Drift {
		p.put("<li>%s <code>%s</code></li>\n", d.Text, d.Command)
	}
	p.put("</ul>\n")
}

// putPicture writes the picture of the mesh.
func (c *content) putPicture(p *markup) {
	if c.Mesh == nil {
		p.put("<p class=\"dim\">No picture: this host is not known to be of a network yet.</p>\n")
		return
	}
	p.WriteString("<figure>" + c.Mesh.svg() + "</figure>")
	if c.Mute != "" {
		p.put(`<p class="dim">%s</p>`, c.Mute)
	}
	p.put("\n")
}

// putHosts writes the table of hosts, if there are any.
func (c *content) putHosts(p *markup) {
	if len(c.Hosts) == 0 {
		return
	}
	p.put(`<h2 id="hosts">Hosts</h2>
<div class="scroll"><table>
<thead><tr><th>host</th><th>address</th><th>container subnets</th><th>from here</th><th>from there</th></tr></thead>
<tbody>
`)
	for _, h := range c.Hosts {
		h.put(p)
	}
	p.put("</tbody></table></div>\n")
	if len(c.More) == 0 {
		return
	}
	p.put("<details><summary>%d more hosts</summary><div class=\"scroll\"><table><tbody>\n", len(c.More))
	for _, h := range c.More {
		h.put(p)
	}
	p.put("</tbody></table></div></details>\n")
}

// put writes the host's row of a table.
func (h hostLine) put(p *markup) {
	p.put("<tr><td>")
	if h.State != "" {
		p.put(`<span class="dot %s"></span>`, h.State)
	}
	if h.Self {
		p.put("<b>%s</b> <small>this host</small>", h.Name)
	} else {
		p.put("%s", h.Name)
	}
	p.put(`</td><td>%s</td><td>%s</td><td class="%s">%s</td><td class="dim">%s</td></tr>`, h.Address, h.Subnets, h.State, h.Words, h.Back)
	p.put("\n")
}

// putNetworks writes the table of networks.
func (c *content) putNetworks(p *markup) {
	p.put(`<h2 id="networks">Networks of this host</h2>
<div class="scroll"><table>
<thead><tr><th>network</th><th>segment</th><th>bridge</th><th>tunnels</th><th>MTU inside</th><th>containers</th><th>conflist</th></tr>
</thead>
<tbody>
`)
	for _, n := range c.Networks {
		p.put("<tr><td>%s</td><td>%s</td><td>%s</td><td>", n.Name, n.Segment, n.Bridge)
		switch {
		case n.Tunnel == "":
		case n.Underlay != "":
			p.put("%s to any host in %s", n.Tunnel, n.Underlay)
		default:
			p.put("%s, %d to %d peers", n.Tunnel, n.Tunnels, n.Peers)
		}
		p.put("</td><td>")
		if n.MTU != 0 {
			p.put("%d", n.MTU)
		}
		p.put("</td><td>%d</td><td>%s</td></tr>\n", len(n.Containers), n.File)
	}
	if len(c.Networks) == 0 {
		p.put("<tr><td colspan=\"7\" class=\"dim\">No conflist of this host names ovs-gre or route-sync.</td></tr>\n")
	}
	p.put("</tbody></table></div>\n")
}

// putContainers writes the table of containers.
func (c *content) putContainers(p *markup) {
	p.put(`<h2 id="containers">Containers of this host</h2>
<div class="scroll"><table>
<thead><tr><th>container</th><th>interface</th><th>network</th><th>port</th><th>state</th></tr></thead>
<tbody>
`)
	for _, n := range c.Networks {
		for _, a := range n.Containers {
			p.put(`<tr><td class="id" title="%[1]s">%[1]s</td><td>%s</td><td>%s</td><td>%s</td>`, a.ID, a.IfName, n.Name, a.Port)
			if a.Error != "" {
				p.put("<td class=\"dead\">%s</td></tr>\n", a.Error)
			} else {
				p.put("<td>attached</td></tr>\n")
			}
		}
	}
	p.put("</tbody></table></div>\n")
}
