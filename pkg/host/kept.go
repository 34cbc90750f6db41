package host

import (
	"path/filepath"
	"slices"
	"strings"
)

// Keep notes links that are not ours and that host state has changed, besides
// those that are noted.
func (d Dir) Keep(links []string) error {
	if _, err := d.make(""); err != nil {
		return err
	}
	all := append(d.Kept(), links...)
	slices.Sort(all)
	return replace(filepath.Join(string(d), "accept_ra"), []byte(strings.Join(slices.Compact(all), "\n")))
}

// Kept lists the links that Keep noted.
func (d Dir) Kept() []string { return strings.Fields(string(d.read("accept_ra"))) }
