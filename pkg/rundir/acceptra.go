package rundir

import (
	"path/filepath"
	"slices"
	"strings"
)

// SaveAcceptRALinks notes links that are not ours and that host state has changed, besides
// those that are noted.
func (d Dir) SaveAcceptRALinks(links []string) error {
	if _, err := d.create(""); err != nil {
		return err
	}
	all := append(d.AcceptRALinks(), links...)
	slices.Sort(all)
	return replaceFile(filepath.Join(string(d), "accept_ra"), []byte(strings.Join(slices.Compact(all), "\n")))
}

// AcceptRALinks lists the links that SaveAcceptRALinks noted.
func (d Dir) AcceptRALinks() []string { return strings.Fields(string(d.read("accept_ra"))) }
