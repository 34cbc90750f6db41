package rundir

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// SaveAcceptRALinks adds to the links that are not ours and whose accept_ra host
// state has changed.
func (d Dir) SaveAcceptRALinks(links []string) error { return d.addWords("accept_ra", links) }

// AcceptRALinks lists the links that SaveAcceptRALinks saved.
func (d Dir) AcceptRALinks() []string { return d.words("accept_ra") }

// SaveGateways adds to the gateway addresses that the network has had on this
// host. It is called before an address is made, so that a call that is killed
// while the nodes change leaves no address that nobody removes.
func (d Dir) SaveGateways(addrs []netip.Addr) error {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return d.addWords("gateways", words)
}

// Gateways lists the addresses that SaveGateways saved.
func (d Dir) Gateways() []netip.Addr {
	var addrs []netip.Addr
	for _, w := range d.words("gateways") {
		if a, err := netip.ParseAddr(w); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// addWords adds words to a file that holds a sorted list of them.
func (d Dir) addWords(file string, words []string) error {
	if _, err := d.create(""); err != nil {
		return err
	}
	have := d.words(file)
	all := slices.Concat(have, words)
	slices.Sort(all)
	if all = slices.Compact(all); slices.Equal(all, have) {
		return nil
	}
	return replaceFile(filepath.Join(string(d), file), []byte(strings.Join(all, "\n")))
}

func (d Dir) words(file string) []string { return strings.Fields(string(d.read(file))) }
