package page

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
)

// square is a mesh of n hosts, all well.
func square(n int) *Mesh {
	m := &Mesh{Network: "net", Self: "host1", Rows: map[string]Row{}}
	for i := range n {
		m.Hosts = append(m.Hosts, config.Node{Name: fmt.Sprint("host", i+1), Address: netip.MustParseAddr("10.0.0.1")})
		r := Row{Host: fmt.Sprint("host", i+1)}
		for j := range n {
			r.Edges = append(r.Edges, Edge{To: fmt.Sprint("host", j+1), Sent: 20, RTT: 1})
		}
		m.Rows[r.Host] = r
	}
	return m
}

func TestCulprits(t *testing.T) {
	m := square(20)
	for i := range 20 {
		m.Rows[m.Hosts[i].Name].Edges[4].Lost = 20 // host5 answers nobody
	}
	m.Rows["host2"].Edges[8].Lost = 1
	g := newGrid(m)
	var said []string
	for _, u := range g.culprits(10) {
		said = append(said, g.words(u))
	}
	want := []string{"host5: 19 of 19 edges are bad", "host2 – host9: 5 % lost"}
	if !slices.Equal(said, want) {
		t.Errorf("%q, want %q", said, want)
	}
	if s := g.summary(); s != "20 hosts, 190 edges, 1 with loss, 19 unreachable, median round trip 1.0 ms" {
		t.Error(s)
	}
}

func TestNatural(t *testing.T) {
	list := []string{"host10", "host9", "a", "host", "host9b", "host010", "10", "9"}
	slices.SortFunc(list, natural)
	if have := strings.Join(list, " "); have != "9 10 a host host9 host9b host10 host010" {
		t.Error(have)
	}
}

// TestOrder: the page lists hosts in the order of their names.
func TestOrder(t *testing.T) {
	m := square(12)
	slices.Reverse(m.Hosts)
	var page strings.Builder
	if err := (&View{Mesh: m}).WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(page.String(), `<h2 id="hosts">`)
	at := 0
	for i := range 12 {
		n := strings.Index(table, fmt.Sprintf(">host%d<", i+1))
		if n < at {
			t.Errorf("host%d stands at %d, the host before it at %d", i+1, n, at)
		}
		at = n
	}
}

// TestStrangers: names and numbers that another host made up neither break the
// picture nor get into it as markup.
func TestStrangers(t *testing.T) {
	const evil = `<script>alert(1)</script>"'&`
	for _, n := range []int{2, 10, 50} {
		m := square(n)
		m.Network = evil
		m.Hosts[1].Name = evil
		m.Rows[evil] = Row{Host: evil, Edges: []Edge{{To: "host1", Sent: -3, Lost: 99, RTT: -1, Tunnel: evil}, {To: "nobody"}, {To: evil}}}
		v := View{Mesh: m, Problems: []string{evil}}
		var svg, page strings.Builder
		if err := errors.Join(m.WriteSVG(&svg), v.WriteHTML(&page)); err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(strings.NewReader(svg.String())); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%d hosts: %v", n, err)
			}
		}
		if strings.Contains(svg.String(), "<script") || strings.Contains(page.String(), "<script") {
			t.Errorf("%d hosts: a name became markup", n)
		}
	}
}

// TestStrangersPage: whatever hosts and containers are called, the page has the
// same elements and attributes, and says the names as they are.
func TestStrangersPage(t *testing.T) {
	const text = `</td></title><script>alert(1)</script><b onload=x>"' onload=x '"&lt;%s` + "`"
	for _, n := range []int{2, 10, 50} {
		have, said := elements(t, strange(n, text))
		want, _ := elements(t, strange(n, "name"))
		if !slices.Equal(have, want) {
			t.Errorf("%d hosts: names made other elements:\n%q\nwant\n%q", n, have, want)
		}
		// Network, interface, container and its title, port, file, drift and so on.
		if count := strings.Count(said, text); count < 20 {
			t.Errorf("%d hosts: the names are said %d times as they are", n, count)
		}
	}
}

// strange is a page of n hosts whose every text that comes from elsewhere is text.
func strange(n int, text string) *View {
	m := square(n)
	m.Network, m.Self = text, text
	m.Hosts[0].Name = text
	m.Hosts[1].Address = netip.MustParseAddr("fe80::1%" + text)
	m.Rows = map[string]Row{text: {Host: text, Edges: []Edge{{To: "host2", Sent: 20, Lost: 1, RTT: 1, Tunnel: text}}}}
	return &View{Mesh: m, Version: text, Problems: []string{text}, Networks: []Network{{
		Name: text, File: text, Segment: text, Bridge: text, Tunnel: text,
		Containers: []Container{{ID: text, IfName: text, Port: text}, {Error: text}},
		Drift:      []Drift{{text, text}}, Errors: []string{text},
	}}}
}

// elements are the page's elements with their attributes' names, and all its text
// and values.
func elements(t *testing.T, v *View) (list []string, text string) {
	t.Helper()
	var page, said strings.Builder
	if err := v.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(page.String()))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return list, said.String()
		} else if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.CharData:
			said.Write(e)
		case xml.EndElement:
			list = append(list, "/"+e.Name.Local)
		case xml.StartElement:
			list = append(list, e.Name.Local)
			for _, a := range e.Attr {
				list = append(list, "@"+a.Name.Local)
				said.WriteString(a.Value)
			}
		}
	}
}

// TestFew: meshes of one host, and of none.
func TestFew(t *testing.T) {
	for n := range 3 {
		var b strings.Builder
		if err := square(n).WriteSVG(&b); err != nil || !strings.Contains(b.String(), "</svg>") {
			t.Errorf("%d hosts: %v", n, err)
		}
	}
}

// TestThousands: of thousands of hosts the page takes memory for the rows that are known,
// and not for each pair.
func TestThousands(t *testing.T) {
	const hosts, most = 5000, 100 << 20
	m := square(1)
	own := Row{Host: "host1"}
	for i := 2; i <= hosts; i++ {
		name := fmt.Sprint("host", i)
		m.Hosts = append(m.Hosts, config.Node{Name: name, Address: netip.MustParseAddr("10.0.0.1")})
		own.Edges = append(own.Edges, Edge{To: name, Sent: 20, RTT: 1})
	}
	own.Edges[7].Lost = 20
	m.Rows["host1"] = own
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var page strings.Builder
	if err := (&View{Mesh: m}).WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > most {
		t.Errorf("%d MB, want at most %d", n>>20, most>>20)
	}
	for _, want := range []string{"5000 hosts, 12497500 edges, 1 unreachable, 12492501 not measured", "of more than 500 none is asked", "host1 – host9: unreachable"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
}
