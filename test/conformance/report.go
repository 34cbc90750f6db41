package conformance

import (
	"fmt"
	"strings"
	"time"
)

// A Report is what came of a run.
type Report struct {
	Chain    string
	Versions []string
	Lines    []Line
}

// A Line is a clause and its outcomes by version.
type Line struct {
	Clause
	Outcomes map[string]Outcome
}

// Count is how many clauses passed and failed, one for each version that they
// were tried in.
func (r *Report) Count() (passed, failed int) {
	for _, l := range r.Lines {
		for _, o := range l.Outcomes {
			switch {
			case !o.Tried:
			case o.Err == nil:
				passed++
			default:
				failed++
			}
		}
	}
	return passed, failed
}

// Summary is the line with the counts.
func (r *Report) Summary() string {
	passed, failed := r.Count()
	return fmt.Sprintf("conformance: %d passed, %d failed", passed, failed)
}

// Failed lists the clauses that failed, with the versions that they failed in.
func (r *Report) Failed() map[string][]string {
	m := map[string][]string{}
	for _, l := range r.Lines {
		for _, v := range r.Versions {
			if o := l.Outcomes[v]; o.Tried && o.Err != nil {
				m[l.ID] = append(m[l.ID], v)
			}
		}
	}
	return m
}

// kinds are the parts of the report.
var kinds = []struct {
	kind  Kind
	title string
}{
	{Spec, "The specification says so"},
	{Library, "Plugins made with containernetworking's library do so"},
	{Promise, "ovs-gre and route-sync promise so"},
}

// Text is the report for people.
func (r *Report) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Chain)
	var took time.Duration
	for _, k := range kinds {
		header := false
		for _, l := range r.Lines {
			if l.Kind != k.kind || !l.tried() {
				continue
			}
			if !header {
				fmt.Fprintf(&b, "\n%s         %-100s", k.kind, k.title)
				for _, v := range r.Versions {
					fmt.Fprintf(&b, " %-5s", v)
				}
				b.WriteString("\n")
				header = true
			}
			took += r.line(&b, l)
		}
	}
	fmt.Fprintf(&b, "\n%s: %s (%v of work)\n", r.Chain, r.Summary(), took.Round(time.Second))
	return b.String()
}

func (l Line) tried() bool {
	for _, o := range l.Outcomes {
		if o.Tried {
			return true
		}
	}
	return false
}

// line prints a clause, then how it failed, and its figures.
func (r *Report) line(b *strings.Builder, l Line) (took time.Duration) {
	says := l.Says
	fmt.Fprintf(b, "%-9s %s%s", l.ID, says, strings.Repeat(" ", max(0, 100-len([]rune(says)))))
	var more []string
	for _, v := range r.Versions {
		o := l.Outcomes[v]
		took += o.Took
		mark := "ok"
		switch {
		case !o.Tried:
			mark = "-"
		case o.Err != nil:
			mark = "FAIL"
			more = append(more, v+": "+strings.ReplaceAll(o.Err.Error(), "\n", "; "))
		}
		if o.Note != "" {
			more = append(more, v+": "+o.Note)
		}
		fmt.Fprintf(b, " %-5s", mark)
	}
	b.WriteString("\n")
	for _, m := range more {
		fmt.Fprintf(b, "          %s\n", m)
	}
	return took
}
