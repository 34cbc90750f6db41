package page

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/page"
)

// overlaps counts pairs of texts in the picture that lie on each other.
const overlaps = `(() => {
  const all = [...document.querySelectorAll("svg text")].map(t => [t.textContent, t.getBoundingClientRect(), t.parentElement.getAttribute("transform")?.startsWith("rotate")]).filter(t => t[0] && !t[2]);
  const bad = [];
  for (let i = 0; i < all.length; i++) for (let j = 0; j < i; j++) {
    const a = all[i][1], b = all[j][1];
    if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4) bad.push(all[i][0] + " on " + all[j][0]);
  }
  return bad;
})()`

// outside lists texts that are cut off by the picture's border.
const outside = `(() => {
  const s = document.querySelector("svg").getBoundingClientRect();
  return [...document.querySelectorAll("svg text")].filter(t => { const r = t.getBoundingClientRect(); return r.left < s.left || r.right > s.right + 1 || r.bottom > s.bottom + 1 }).map(t => t.textContent);
})()`

// TestPage: the page of 3, 30 and 300 hosts, light and dark, wide and narrow.
func TestPage(t *testing.T) {
	b := start(t)
	for _, n := range []int{3, 6, 30, 300} {
		look(t, b, fmt.Sprint(n), View(n), func(name, text string) { expect(t, name, n, text) })
	}
}

// TestAlone: a host that no other tells anything, and one that is of no network yet.
func TestAlone(t *testing.T) {
	b := start(t)
	v := View(120)
	v.Mesh.Rows = map[string]page.Row{v.Mesh.Self: v.Mesh.Rows[v.Mesh.Self]}
	look(t, b, "alone", v, func(name, text string) {
		if !strings.Contains(text, "No measurements of 119 hosts") || !strings.Contains(text, "host81") {
			t.Errorf("%s: %.1500s", name, text)
		}
	})
	v = View(3)
	v.Mesh, v.Networks, v.Problems = nil, nil, []string{"no pass is made yet"}
	var raw bytes.Buffer
	if err := v.WriteHTML(&raw); err != nil || !strings.Contains(raw.String(), "No picture") {
		t.Errorf("before the first pass: %v\n%s", err, raw.String())
	}
}

// look opens a view, light and dark, wide and narrow, and looks for what a person
// would mind.
func look(t *testing.T, b *browser, what string, v *page.View, expect func(name, text string)) {
	t.Helper()
	var raw bytes.Buffer
	if err := v.WriteHTML(&raw); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d kB", what, raw.Len()/1000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", page.Policy)
		_, _ = w.Write(raw.Bytes())
	}))
	defer s.Close()
	backs := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int{1280, 800} {
			name := fmt.Sprintf("%s-%s-%d", what, scheme, width)
			b.open(t, s.URL+"/", width, 900, scheme)
			var bad []string
			if b.eval(t, overlaps, &bad); len(bad) > 0 {
				t.Errorf("%s: texts lie on each other: %.5q", name, bad)
			}
			if b.eval(t, outside, &bad); len(bad) > 0 {
				t.Errorf("%s: texts are cut off: %.5q", name, bad)
			}
			var scrolls bool
			if b.eval(t, "document.documentElement.scrollWidth > innerWidth", &scrolls); scrolls {
				t.Errorf("%s: the page is wider than the window", name)
			}
			var back, svg string
			b.eval(t, "getComputedStyle(document.body).backgroundColor", &back)
			b.eval(t, `getComputedStyle(document.querySelector("svg .back")).fill`, &svg)
			if backs[scheme+back] = true; back != svg {
				t.Errorf("%s: the page is %s, the picture %s", name, back, svg)
			}
			urls, complaints := b.requests(t)
			if len(urls) != 1 || len(complaints) > 0 {
				t.Errorf("%s: it asks for %q; %q", name, urls, complaints)
			}
			var text string
			b.eval(t, "document.body.innerText", &text)
			expect(name, text)
			b.screenshot(t, name)
		}
	}
	if len(backs) != 2 {
		t.Errorf("%s: light and dark: %v", what, backs)
	}
}

// expect looks for what a person looks for.
func expect(t *testing.T, name string, n int, text string) {
	t.Helper()
	want := []string{"3 hosts, 3 edges, all answered", "as it should be", "host3", "172.16.32.102", "10.88.2.0/24", "1462", "gre, 2 to 2 peers", "1.2.3"}
	if n > 3 {
		want = []string{fmt.Sprintf("%d hosts", n), "something is wrong", fmt.Sprintf("host%d: %d of %d edges are bad", n*2/3+1, n-2, n-1), "remote_ip is 172.16.32.99", "15 % lost"}
	}
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s: no %q in\n%.1500s", name, w, text)
		}
	}
}
