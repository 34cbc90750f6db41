package page

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
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

// TestFew: meshes of one host, and of none.
func TestFew(t *testing.T) {
	for n := range 3 {
		var b strings.Builder
		if err := square(n).WriteSVG(&b); err != nil || !strings.Contains(b.String(), "</svg>") {
			t.Errorf("%d hosts: %v", n, err)
		}
	}
}
