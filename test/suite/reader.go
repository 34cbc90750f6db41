package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// An event is a line of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string // of a package that does not build
	Elapsed                       float64
}

// A reader reads events, tells of them and notes results.
type reader struct {
	dir dir
	log io.Writer

	mu      sync.Mutex
	results map[string]*result
	// output is what each test that has not passed yet has printed.
	output map[string][]string
	// told is when a line was last printed, last the test that last began.
	told time.Time
	last string
}

func newReader(d dir, log io.Writer) *reader {
	// The first of all runs says when it all began.
	if f, err := os.OpenFile(d.file("began"), os.O_CREATE|os.O_EXCL, 0o644); err == nil {
		f.Close()
	}
	return &reader{dir: d, log: log, results: map[string]*result{}, output: map[string][]string{}, told: time.Now()}
}

// quiet is after how long without a line it says what it is at.
const quiet = 20 * time.Second

// figures are lines for a person that no failure asks for.
var figures = regexp.MustCompile(`^(hostile|faults|conformance|bench|datapath): `)

// read reads to the end.
func (r *reader) read(events io.Reader) error {
	done := make(chan struct{})
	defer close(done)
	go r.remind(done)
	s := bufio.NewScanner(events)
	s.Buffer(nil, 64<<20)
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) != nil {
			fmt.Fprintln(os.Stderr, s.Text()) // go's own, before any test
			continue
		}
		if err := r.take(e); err != nil {
			return err
		}
	}
	return s.Err()
}

func (r *reader) take(e event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := e.Package + " " + e.Test
	res := r.results[e.Package]
	if res == nil {
		res = &result{Package: strings.TrimPrefix(e.Package, module)}
		r.results[e.Package] = res
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(os.Stderr, e.Output)
	case "output":
		fmt.Fprint(r.log, e.Output)
		r.output[key] = append(r.output[key], e.Output)
		if figures.MatchString(e.Output) {
			fmt.Print(e.Output)
		}
	case "run":
		r.last = res.Package + " " + e.Test
	case "pass", "fail", "skip":
		r.end(e, res, r.output[key])
		delete(r.output, key)
		if e.Test == "" && (res.Bad || res.Passed+res.Failed+res.Skipped > 0) {
			return r.finish(e, res) // but for packages that have no tests
		}
	}
	return nil
}

// end counts a test that has ended and prints what one that failed has printed.
func (r *reader) end(e event, res *result, output []string) {
	switch {
	case e.Action == "fail":
		res.Bad = true
		if e.Test != "" {
			res.Failed++
		}
		const most = 300
		if more := len(output) - most; more > 0 {
			output = append([]string{fmt.Sprintf("(%d lines before are in %s)\n", more, r.dir.file("log"))}, output[more:]...)
		}
		fmt.Fprintf(os.Stderr, "\n%s %s failed:\n%s\n", res.Package, e.Test, strings.Join(output, ""))
	case e.Test == "":
	case e.Action == "pass":
		res.Passed++
	default:
		res.Skipped++
		fmt.Fprintf(os.Stderr, "%s %s was skipped:\n%s", res.Package, e.Test, strings.Join(output, ""))
	}
}

// finish notes a package and says how far everything is.
func (r *reader) finish(e event, res *result) error {
	res.Seconds = e.Elapsed
	if err := r.dir.note(*res); err != nil {
		return err
	}
	word := "ok    "
	if res.Bad {
		word = "failed"
	}
	counts := fmt.Sprintf("%d passed", res.Passed)
	if res.Failed > 0 {
		counts += fmt.Sprintf(", %d failed", res.Failed)
	}
	if res.Skipped > 0 {
		counts += fmt.Sprintf(", %d skipped", res.Skipped)
	}
	return r.tell(fmt.Sprintf("%s %-18s %4.0f s  %s", word, res.Package, res.Seconds, counts))
}

// tell prints a line behind the time and how much of the whole is done.
func (r *reader) tell(line string) error {
	list, began, err := r.dir.results()
	if err != nil {
		return err
	}
	done, all := 0.0, float64(total())
	for _, one := range list {
		if weights[one.Package] > 0 {
			done += weight(one.Package)
		}
	}
	took := time.Since(began).Round(time.Second)
	fmt.Fprintf(os.Stderr, "%2d:%02d %3.0f %%  %s\n", int(took.Minutes()), int(took.Seconds())%60, min(99, 100*done/all), line)
	r.told = time.Now()
	return nil
}

// remind says what is being run where nothing has been told for a while.
func (r *reader) remind(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(quiet / 4):
		}
		r.mu.Lock()
		if time.Since(r.told) > quiet && r.last != "" {
			_ = r.tell("       " + r.last) // where the directory has gone the next result says so
		}
		r.mu.Unlock()
	}
}
