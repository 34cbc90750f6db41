package runtimes

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

// all reports whether the long list of runtimes is asked for.
func all() bool { return os.Getenv("RUNTIMES") == "all" }

// Each runtime of the suite has a line in the table, whatever becomes of it.
// Those of more are only there with RUNTIMES=all.
var (
	usual = []string{"ctr, containerd 1.6", "nerdctl, containerd 1.6", "nerdctl quick start", "on real hosts", "Docker Engine", "podman, CNI"}
	more  = []string{"ctr, containerd 2", "nerdctl, containerd 2", "CRI, containerd 1.6", "CRI, containerd 2", "critest, containerd 2", "CRI-O"}
)

// expected are the runtimes that this run must have.
func expected() []string {
	if all() {
		return slices.Concat(usual, more)
	}
	return usual
}

// A line is a runtime in the table: what it was, what it called, what was
// looked at.
type line struct {
	runtime, version string
	calls            []call
	checked          []string
	state            string        // "", FAILED, skipped or ok
	took             time.Duration // of all checks
}

// building is how long test/upstream took to build what the cache lacked.
var building time.Duration

// table has the lines of all runtimes that were begun, by their names.
var table = struct {
	sync.Mutex
	lines map[string]*line
}{lines: map[string]*line{}}

// begin starts a runtime's line. It is FAILED if the test fails.
func begin(t *testing.T, runtime string) *line {
	t.Helper()
	l := &line{runtime: runtime}
	table.Lock()
	defer table.Unlock()
	if !slices.Contains(expected(), runtime) || table.lines[runtime] != nil {
		t.Fatalf("the table has no line for %s, or has it already", runtime)
	}
	table.lines[runtime] = l
	t.Cleanup(func() {
		switch {
		case t.Failed():
			l.state = "FAILED"
		case t.Skipped():
			l.state = "skipped"
		default:
			l.state = "ok"
		}
	})
	return l
}

// A check is one thing that is looked at in a lab of type L.
type check[L any] struct {
	what string
	test func(*testing.T, L)
}

// checkAll makes checks. After each, nothing of it is left on the lab's hosts.
func checkAll[L any](t *testing.T, row *line, lab *testnet.Lab, l L, checks []check[L]) {
	before := look(t, lab)
	for _, c := range checks {
		row.check(t, c.what, func(t *testing.T) {
			c.test(t, l)
			nothingLeft(t, lab, before)
		})
	}
}

// check is a part of a runtime's test, which the table names when it has run.
func (l *line) check(t *testing.T, what string, f func(t *testing.T)) {
	t.Helper()
	ran, started := false, time.Now()
	ok := t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
		ran = true
		f(t)
	})
	l.took += time.Since(started)
	switch {
	case !ok:
		l.checked = append(l.checked, what+" (FAILED)")
	case ran: // and not left out by -run
		l.checked = append(l.checked, what)
	}
}

// printTable writes the table, and reports whether all that was expected is in
// it and ok, or skipped where that may be.
func printTable(names []string) bool {
	table.Lock()
	defer table.Unlock()
	fine := true
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nRUNTIME\tVERSION\tRESULT\tVERBS SEEN\tCHECKED")
	for _, name := range names {
		l := table.lines[name]
		if l == nil {
			l = &line{runtime: name, state: "NOT RUN"}
		}
		fine = fine && (l.state == "ok" || l.state == "skipped" && os.Getenv("CI") != "true")
		fmt.Fprintf(w, "%s\t%s\t%s %.0fs\t%s\t%s\n", l.runtime, l.version, l.state, l.took.Seconds(), cmp.Or(verbs(l.calls), "-"), strings.Join(l.checked, ", "))
	}
	_ = w.Flush()
	return fine
}

func TestMain(m *testing.M) {
	flag.Parse()
	started := time.Now()
	code := m.Run()
	removePlugins()
	names := expected()
	if chosen := flag.Lookup("test.run").Value.String() + flag.Lookup("test.skip").Value.String(); chosen != "" {
		names = slices.DeleteFunc(names, func(n string) bool { return table.lines[n] == nil })
	}
	if flag.Lookup("test.list").Value.String() == "" && !printTable(names) && code == 0 {
		fmt.Println("FAIL: a runtime was skipped or has not run")
		code = 1
	}
	fmt.Printf("runtimes: %.0f s, %.0f s of them in building other projects' programs\n", time.Since(started).Seconds(), building.Seconds())
	os.Exit(code)
}
