package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestReader: what ran is counted, also where a package does not build, and in a
// sum over several runs.
func TestReader(t *testing.T) {
	d := dir(t.TempDir() + "/made")
	if err := d.begin(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	for _, events := range []string{`
{"Action":"run","Package":"ovs-gre-cni/pkg/a","Test":"TestA"}
{"Action":"output","Package":"ovs-gre-cni/pkg/a","Test":"TestA","Output":"said by A\n"}
{"Action":"pass","Package":"ovs-gre-cni/pkg/a","Test":"TestA/sub"}
{"Action":"pass","Package":"ovs-gre-cni/pkg/a","Test":"TestA"}
{"Action":"skip","Package":"ovs-gre-cni/pkg/a","Test":"TestB"}
{"Action":"pass","Package":"ovs-gre-cni/pkg/a","Elapsed":2}
{"Action":"skip","Package":"ovs-gre-cni/pkg/none"}`, `
not JSON
{"ImportPath":"ovs-gre-cni/pkg/b","Action":"build-output","Output":"undefined: x\n"}
{"Action":"fail","Package":"ovs-gre-cni/pkg/b","Elapsed":0}
{"Action":"fail","Package":"ovs-gre-cni/pkg/c","Test":"TestC"}
{"Action":"fail","Package":"ovs-gre-cni/pkg/c","Elapsed":1}`} {
		if err := newReader(d, &log).read(strings.NewReader(strings.TrimSpace(events))); err != nil {
			t.Fatal(err)
		}
	}
	list, _, err := d.results()
	if err != nil {
		t.Fatal(err)
	}
	want := []result{{Package: "pkg/a", Passed: 2, Skipped: 1, Seconds: 2}, {Package: "pkg/b", Bad: true}, {Package: "pkg/c", Failed: 1, Bad: true, Seconds: 1}}
	if len(list) != len(want) {
		t.Fatalf("%+v, want %+v", list, want)
	}
	for i := range want {
		if list[i] != want[i] {
			t.Errorf("%+v, want %+v", list[i], want[i])
		}
	}
	if code, err := d.sum(); code != 1 || err != nil {
		t.Errorf("the sum ends with %d, %v, although packages failed", code, err)
	}
	if log.String() != "said by A\n" {
		t.Errorf("log: %q", log.String())
	}
}
