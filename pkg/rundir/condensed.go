package rundir

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/state"
)

// manyNodes is up to how many nodes reading them takes no longer than what it is for.
const manyNodes = 64

// saveCondensed writes what Condensed reads: the sum of the nodes' text, and what
// state.Condensed makes of them.
func (d Dir) saveCondensed(list []config.Node, self string) error {
	at := slices.IndexFunc(list, func(n config.Node) bool { return n.Name == self })
	if len(list) <= manyNodes || at < 0 {
		return nil
	}
	m := nodes.Topology{Self: list[at], Peers: slices.Concat(list[:at], list[at+1:])}
	sum := sha256.Sum256(config.EncodeNodes(list))
	text := append([]byte(hex.EncodeToString(sum[:])), '\n')
	return replaceFile(filepath.Join(string(d), "condensed"), append(text, config.EncodeNodes(state.Condensed(m).All())...))
}

// Condensed returns state.Condensed of the nodes of the last Save. ok is false where
// they were few, or are not the same any more, byte by byte: then SavedNodes has them.
func (d Dir) Condensed() (m nodes.Topology, ok bool) {
	text := d.read("condensed")
	sum, list, found := bytes.Cut(text, []byte("\n"))
	if !found {
		return m, false
	}
	raw, err := os.ReadFile(filepath.Join(string(d), "nodes.json"))
	if now := sha256.Sum256(raw); err != nil || string(sum) != hex.EncodeToString(now[:]) {
		return m, false
	}
	both, err := config.DecodeNodes("condensed", list)
	if err != nil || len(both) != 2 {
		return m, false
	}
	return nodes.Topology{Self: both[0], Peers: both[1:]}, true
}
