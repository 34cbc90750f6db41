package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/state"
)

var (
	sources4  = addressSet{"sources4", nftables.TypeIPAddr}
	excluded4 = addressSet{"excluded4", nftables.TypeIPAddr}
	sources6  = addressSet{"sources6", nftables.TypeIP6Addr}
	excluded6 = addressSet{"excluded6", nftables.TypeIP6Addr}
)

// masqueradeTable is the table of a network's state.Masquerade. It has sets and rules
// for both families, whatever those of the network's subnets. The offsets are those of
// the addresses in the IPv4 and IPv6 headers (RFC 791, RFC 8200).
//
//	table inet ovs-gre-<network> {
//		set sources4 { type ipv4_addr; flags interval; elements = { … } }
//		set excluded4 …; set sources6 { type ipv6_addr; … }; set excluded6 …
//		chain postrouting {
//			type nat hook postrouting priority srcnat; policy accept;
//			ip saddr @sources4 ip daddr != @excluded4 masquerade
//			ip6 saddr @sources6 ip6 daddr != @excluded6 masquerade
//		}
//	}
func masqueradeTable(network string) ownTable {
	t := ownTable{
		name: config.FirewallTable(network), object: state.Masquerade{Network: network},
		sets: []addressSet{sources4, excluded4, sources6, excluded6},
	}
	t.addChain("postrouting", nftables.ChainTypeNAT, unix.NF_INET_POST_ROUTING, nftables.ChainPriorityNATSource,
		masqueradeRule(unix.NFPROTO_IPV4, 12, 16, 4, sources4, excluded4),
		masqueradeRule(unix.NFPROTO_IPV6, 8, 24, 16, sources6, excluded6))
	return t
}

func masqueradeRule(proto byte, saddr, daddr, size uint32, src, exc addressSet) []expr.Any {
	const reg = unix.NFT_REG_1
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{proto}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: saddr, Len: size},
		&expr.Lookup{SourceRegister: reg, SetName: src.name},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: daddr, Len: size},
		&expr.Lookup{SourceRegister: reg, SetName: exc.name, Invert: true},
		&expr.Masq{},
	}
}

// observeMasquerade returns a state.Masquerade, an altered, or nil where the network
// has no table.
func observeMasquerade(r *reader, network string) (state.Object, error) {
	lists, instead, err := masqueradeTable(network).observe(r)
	if lists == nil {
		return instead, err
	}
	return state.Masquerade{Network: network, Sources: joinCIDRs(lists[0], lists[2]), Excluded: joinCIDRs(lists[1], lists[3])}, nil
}

// applyMasquerade replaces the network's table, or deletes it, if there is one.
func applyMasquerade(ctx context.Context, c state.Change) error {
	m, ok := c.New.(state.Masquerade)
	if !ok {
		return masqueradeTable(c.Old.ID().Name).replace(ctx, nil)
	}
	src4, src6, err := parseCIDRs(m.Sources)
	exc4, exc6, err2 := parseCIDRs(m.Excluded)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("%s: %w", m.Noun(), err)
	}
	err = masqueradeTable(m.Network).replace(ctx, [][]netip.Prefix{src4, exc4, src6, exc6})
	if errors.Is(err, os.ErrNotExist) { // of what the transaction names, only kernel modules can be missing
		return fmt.Errorf("the kernel has no NAT for nftables (CONFIG_NFT_NAT, CONFIG_NFT_MASQ): %w", err)
	}
	return err
}
