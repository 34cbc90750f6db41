package firewall

import (
	"bytes"
	"cmp"
	"errors"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// An interval set of nf_tables is a list of boundaries: an element begins an
// interval, an element with the flag INTERVAL_END ends it before its key. An
// interval that reaches the last address has no end. Where two intervals
// touch, the end of one and the beginning of the other have the same key.

// parseCIDRs parses a comma-separated list of CIDRs by family.
func parseCIDRs(list string) (v4, v6 []netip.Prefix, err error) {
	for s := range strings.SplitSeq(list, ",") {
		if s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, nil, err
		}
		if p.Addr().Is4() {
			v4 = append(v4, p.Masked())
		} else {
			v6 = append(v6, p.Masked())
		}
	}
	return v4, v6, nil
}

// joinCIDRs is the reverse of parseCIDRs: a sorted, comma-separated list.
func joinCIDRs(lists ...[]netip.Prefix) string {
	all := slices.Concat(lists...)
	slices.SortFunc(all, netip.Prefix.Compare)
	s := make([]string, len(all))
	for i, p := range all {
		s[i] = p.String()
	}
	return strings.Join(s, ",")
}

// boundaries are the elements of an interval set that contains the CIDRs.
func boundaries(cidrs []netip.Prefix) []nftables.SetElement {
	elems := make([]nftables.SetElement, 0, 2*len(cidrs))
	for _, p := range cidrs {
		elems = append(elems, nftables.SetElement{Key: p.Addr().AsSlice()})
		if end := last(p).Next(); end.IsValid() {
			elems = append(elems, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return elems
}

// errElement is the error about an element that boundaries does not make.
var errElement = errors.New("an element that is no interval of addresses")

// cidrs is the reverse of boundaries, for elements in any order. The CIDRs are sorted;
// an interval that is not one CIDR is returned as several.
func cidrs(elems []*element) ([]netip.Prefix, error) {
	for _, e := range elems {
		if e.flags&^unix.NFT_SET_ELEM_INTERVAL_END != 0 || len(e.key) != 4 && len(e.key) != 16 {
			return nil, errElement
		}
	}
	slices.SortFunc(elems, byKey)
	var list []netip.Prefix
	for i, e := range elems {
		if e.flags != 0 {
			continue // the end of the interval before, or nft's mark of an empty beginning
		}
		first, _ := netip.AddrFromSlice(e.key)
		end := netip.Addr{}
		if i+1 < len(elems) {
			end, _ = netip.AddrFromSlice(elems[i+1].key)
		}
		list = append(list, split(first, end)...)
	}
	return list, nil
}

// byKey orders elements. Of equal keys the end is first: it belongs to the
// interval before.
func byKey(a, b *element) int {
	return cmp.Or(bytes.Compare(a.key, b.key), cmp.Compare(b.flags, a.flags))
}

// split covers the addresses from first to the one before end by the fewest
// CIDRs. The zero end is the end of the address space.
func split(first, end netip.Addr) []netip.Prefix {
	var list []netip.Prefix
	for first.IsValid() && (!end.IsValid() || first.Less(end)) {
		p := netip.PrefixFrom(first, first.BitLen()-trailingZeros(first.AsSlice()))
		for end.IsValid() && !last(p).Less(end) {
			p = netip.PrefixFrom(first, p.Bits()+1)
		}
		list = append(list, p)
		first = last(p).Next()
	}
	return list
}

func trailingZeros(b []byte) int {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0 {
			return 8*(len(b)-1-i) + bits.TrailingZeros8(b[i])
		}
	}
	return 8 * len(b)
}

// last is the last address of a CIDR.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
