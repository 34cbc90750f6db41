package cnitest

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// A Spec is a test of a suite that is written with Ginkgo, and what became of it.
type Spec struct {
	Name string
	// State is passed, failed, skipped, pending, timedout, interrupted, aborted
	// or panicked.
	State string
	// Why is what the test said when it failed or skipped itself, in one line;
	// "" of one that passed, or that the suite was told to leave out.
	Why  string
	Took time.Duration
}

// Passed reports whether it ran and passed.
func (s Spec) Passed() bool { return s.State == "passed" }

// Ran reports whether the suite came to it, and it did not skip itself.
func (s Spec) Ran() bool { return s.State != "skipped" && s.State != "pending" }

// ReadSpecs are the tests of a report that --ginkgo.json-report has written, in
// its order. Set-up and clean-up of the whole suite count as tests where they
// failed.
func ReadSpecs(t testing.TB, file string) []Spec {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts    []string
			LeafNodeType, LeafNodeText string
			State                      string
			RunTime                    time.Duration
			Failure                    struct{ Message string }
		}
	}
	if err := json.Unmarshal(raw, &suites); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	var specs []Spec
	for _, suite := range suites {
		for _, r := range suite.SpecReports {
			s := Spec{State: r.State, Why: strings.Join(strings.Fields(r.Failure.Message), " "), Took: r.RunTime}
			s.Name = strings.Join(append(r.ContainerHierarchyTexts, r.LeafNodeText), " ")
			if r.LeafNodeType != "It" {
				if s.Passed() {
					continue
				}
				s.Name = r.LeafNodeType
			}
			specs = append(specs, s)
		}
	}
	return specs
}
