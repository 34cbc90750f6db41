package config_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"testing/iotest"

	"ovs-gre-cni/pkg/config"
)

func TestIsEncoded(t *testing.T) {
	for _, n := range []int{0, 1, 2, 1000} {
		nodes := make([]config.Node, n)
		for i := range nodes {
			nodes[i] = config.Node{
				Name: fmt.Sprintf("host %d ü", i), Address: netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}),
				Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")},
			}
		}
		raw := config.EncodeNodes(nodes)
		for _, at := range []int{0, n / 2, n} {
			if !config.IsEncoded(iotest.OneByteReader(bytes.NewReader(raw)), nodes[:at], nodes[at:]) {
				t.Errorf("%d nodes in two lists, %d in the first: not what EncodeNodes writes", n, at)
			}
		}
		for what, other := range map[string][]byte{
			"a byte more": append(bytes.Clone(raw), '\n'), "a byte less": raw[:len(raw)-1], "nothing": nil,
			"another byte": bytes.Replace(raw, []byte("]"), []byte(" "), 1), "another name": bytes.Replace(raw, []byte("ü"), []byte("u"), 1),
			"another address": bytes.Replace(raw, []byte("172"), []byte("173"), 1),
		} {
			if !bytes.Equal(other, raw) && config.IsEncoded(bytes.NewReader(other), nodes) {
				t.Errorf("%d nodes: %s is the same", n, what)
			}
		}
	}
}
