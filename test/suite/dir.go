package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A dir is where the runs of one make test note what ran.
type dir string

func (d dir) file(name string) string { return filepath.Join(string(d), name) }

func (d dir) begin() error {
	if err := os.RemoveAll(string(d)); err != nil {
		return err
	}
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "about %d minutes on two processors; everything that is printed: %s\n", (total()+59)/60, d.file("log"))
	return os.WriteFile(d.file("ran"), nil, 0o644)
}

// A result is what came of a package.
type result struct {
	Package                 string
	Passed, Failed, Skipped int
	// Bad: it failed, for tests that did or without one.
	Bad     bool
	Seconds float64
}

// note adds a result, in one write.
func (d dir) note(r result) error {
	f, err := os.OpenFile(d.file("ran"), os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewEncoder(f).Encode(r)
}

// results are those so far, and when the first run began.
func (d dir) results() (list []result, began time.Time, err error) {
	f, err := os.Open(d.file("ran"))
	if err != nil {
		return nil, began, err
	}
	defer f.Close()
	// The directory's own time is that of the last file made in it.
	if st, err := os.Stat(d.file("began")); err == nil {
		began = st.ModTime()
	}
	for s := bufio.NewScanner(f); s.Scan(); {
		var r result
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			return nil, began, err
		}
		list = append(list, r)
	}
	return list, began, nil
}

// sum prints what ran, and is 1 where something failed or nothing ran.
func (d dir) sum() (int, error) {
	list, began, err := d.results()
	if err != nil {
		return 0, err
	}
	var all result
	var bad []string
	for _, r := range list {
		all.Passed, all.Failed, all.Skipped = all.Passed+r.Passed, all.Failed+r.Failed, all.Skipped+r.Skipped
		if r.Bad {
			bad = append(bad, r.Package)
		}
	}
	if len(bad) > 0 {
		fmt.Fprintf(os.Stderr, "failed: %s\n", strings.Join(bad, " "))
	}
	fmt.Fprintf(os.Stderr, "%d passed, %d failed, %d skipped, in %d packages and %s\n",
		all.Passed, all.Failed, all.Skipped, len(list), time.Since(began).Round(time.Second))
	if len(bad) > 0 || all.Passed == 0 {
		return 1, nil
	}
	return 0, nil
}
