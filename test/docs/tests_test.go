package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestNamedTests: each test that a page names is a test of the repository.
func TestNamedTests(t *testing.T) {
	name := regexp.MustCompile(`\bTest[A-Z][A-Za-z0-9]+`)
	known := map[string]bool{}
	for _, dir := range []string{"pkg", "cmd", "deploy", "test"} {
		err := filepath.WalkDir(root+dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			raw, err := os.ReadFile(path)
			for _, f := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(raw, -1) {
				known[string(f[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pages, _ := filepath.Glob(root + "*.md")
	more, _ := filepath.Glob(root + "docs/*.md")
	for _, page := range append(pages, more...) {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range name.FindAllString(string(raw), -1) {
			if !known[n] {
				t.Errorf("%s names %s, which is no test", page, n)
			}
		}
	}
}
