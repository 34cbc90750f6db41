package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/state"
)

// A GuardBackend is the state.Backend of a network's state.Guard. It is apart from
// Backend because it comes first: what it drops it drops before anything else of
// the network is there, and until all else is gone.
//
// The table always has this form; only names and elements differ:
//
//	table inet ovs-gre-<network>/guard {
//		set peers4 { type ipv4_addr; flags interval; elements = { … } }
//		set peers6 …
//		chain prerouting {
//			type filter hook prerouting priority raw; policy accept;
//			iifname != "obr0-w" ip saddr @peers4 drop
//			iifname != "obr0-w" ip6 saddr @peers6 drop
//		}
//		chain postrouting {
//			type filter hook postrouting priority filter; policy accept;
//			oifname != "obr0-w" ip daddr @peers4 drop
//			oifname != "obr0-w" ip6 daddr @peers6 drop
//		}
//	}
//
// Where IPsec encrypts the network's tunnels, it also has:
//
//	set nodes4 …
//	set nodes6 …
//	chain input {
//		type filter hook input priority filter; policy accept;
//		ip saddr @nodes4 meta l4proto gre meta secpath missing drop
//		ip6 saddr @nodes6 meta l4proto gre meta secpath missing drop
//	}
//	chain output {
//		type filter hook output priority filter; policy accept;
//		ip daddr @nodes4 meta l4proto gre rt ipsec missing drop
//		ip6 daddr @nodes6 meta l4proto gre rt ipsec missing drop
//	}
//
// A packet that comes encrypted passes input twice, and has a secpath when it is
// clear; one that leaves passes output first while it is clear, with a route that
// leads into IPsec.
type GuardBackend struct{ form state.Guard }

var _ state.Backend = GuardBackend{}

// NewGuardBackend returns the backend of the state.Guard of a network that has this
// form (state.GuardForm).
func NewGuardBackend(form state.Guard) GuardBackend { return GuardBackend{form} }

var (
	guarded4 = addressSet{"peers4", nftables.TypeIPAddr}
	guarded6 = addressSet{"peers6", nftables.TypeIP6Addr}
	nodes4   = addressSet{"nodes4", nftables.TypeIPAddr}
	nodes6   = addressSet{"nodes6", nftables.TypeIP6Addr}
)

// table is the table of the guard. The offsets are those of the addresses in the IPv4
// and IPv6 headers (RFC 791, RFC 8200).
func (b GuardBackend) table() ownTable {
	t := ownTable{name: config.GuardName(b.form.Network), object: state.Guard{Network: b.form.Network}, sets: []addressSet{guarded4, guarded6}}
	filter := func(name string, hook uint32, priority *nftables.ChainPriority, rules [][]expr.Any) {
		t.addChain(name, nftables.ChainTypeFilter, hook, priority, rules...)
	}
	source := func(otherwise guardCondition, v4, v6 addressSet) [][]expr.Any {
		return [][]expr.Any{otherwise.drop(unix.NFPROTO_IPV4, 12, 4, v4), otherwise.drop(unix.NFPROTO_IPV6, 8, 16, v6)}
	}
	destination := func(otherwise guardCondition, v4, v6 addressSet) [][]expr.Any {
		return [][]expr.Any{otherwise.drop(unix.NFPROTO_IPV4, 16, 4, v4), otherwise.drop(unix.NFPROTO_IPV6, 24, 16, v6)}
	}
	filter("prerouting", unix.NF_INET_PRE_ROUTING, nftables.ChainPriorityRaw,
		source(guardCondition{before: notBy(expr.MetaKeyIIFNAME, b.form.Link)}, guarded4, guarded6))
	filter("postrouting", unix.NF_INET_POST_ROUTING, nftables.ChainPriorityFilter,
		destination(guardCondition{before: notBy(expr.MetaKeyOIFNAME, b.form.Link)}, guarded4, guarded6))
	if b.form.Tunnels == "" {
		return t
	}
	const reg = unix.NFT_REG_1
	missing := &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{0}}
	in := append(outer(b.form.Tunnels), &expr.Meta{Key: metaSecpath, Register: reg}, missing)
	out := append(outer(b.form.Tunnels), &expr.Rt{Key: rtIPsec, Register: reg}, missing)
	t.sets = append(t.sets, nodes4, nodes6)
	filter("input", unix.NF_INET_LOCAL_IN, nftables.ChainPriorityFilter, source(guardCondition{behind: in}, nodes4, nodes6))
	filter("output", unix.NF_INET_LOCAL_OUT, nftables.ChainPriorityFilter, destination(guardCondition{behind: out}, nodes4, nodes6))
	return t
}

// NFT_META_SECPATH and NFT_RT_XFRM of linux/netfilter/nf_tables.h, which
// golang.org/x/sys/unix lacks.
const (
	metaSecpath expr.MetaKey = 25
	rtIPsec     expr.RtKey   = 4
)

// A guardCondition is what a guard's rule asks of a packet before and behind its
// address.
type guardCondition struct{ before, behind []expr.Any }

// drop is the rule that drops such packets with an address of a set.
func (c guardCondition) drop(proto byte, offset, size uint32, addresses addressSet) []expr.Any {
	const reg = unix.NFT_REG_1
	return slices.Concat(c.before, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{proto}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Lookup{SourceRegister: reg, SetName: addresses.name},
	}, c.behind, []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
}

// notBy is a packet that comes or goes by another link.
func notBy(key expr.MetaKey, link string) []expr.Any {
	const reg = unix.NFT_REG_1
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, link)
	return []expr.Any{&expr.Meta{Key: key, Register: reg}, &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: name}}
}

// outer is a tunnel's outer packet, as state.Guard.Tunnels has it.
func outer(tunnels string) []expr.Any {
	const reg = unix.NFT_REG_1
	text, udp := strings.CutPrefix(tunnels, "udp ")
	proto := byte(unix.IPPROTO_GRE)
	if udp {
		proto = unix.IPPROTO_UDP
	}
	list := []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{proto}}}
	if udp {
		port, _ := strconv.ParseUint(text, 10, 16)
		list = append(list, // the destination port (RFC 768)
			&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{byte(port >> 8), byte(port)}})
	}
	return list
}

// Observe implements state.Backend. The errors are Backend's.
func (b GuardBackend) Observe(ctx context.Context, want state.Set) (state.Set, error) {
	guard, err := confirmed(func() (guard state.Object, err error) {
		err = read(ctx, func(r *reader) (err error) {
			guard, err = b.look(r)
			return err
		})
		return guard, err
	})
	have := state.Set{}
	if _, wanted := want[state.Guard{Network: b.form.Network}.ID()]; err != nil && (wanted || !errors.Is(err, ErrUnsupported)) {
		return have, err
	}
	if guard != nil {
		have.Put(guard)
	}
	return have, nil
}

// look returns a state.Guard of the backend's form, an altered, or nil where the
// network has no guard.
func (b GuardBackend) look(r *reader) (state.Object, error) {
	lists, instead, err := b.table().observe(r)
	if lists == nil {
		return instead, err
	}
	guard := b.form
	guard.Peers, guard.Nodes = joinCIDRs(lists[:2]...), joinCIDRs(lists[2:]...)
	return guard, nil
}

// Apply implements state.Backend. A guard is replaced as a whole, in one
// transaction: packets meet the old one or the new one.
func (b GuardBackend) Apply(ctx context.Context, changes []state.Change) error {
	var errs []error
	for _, c := range changes {
		if c.Kind() == state.KindGuard {
			errs = append(errs, b.apply(ctx, c))
		}
	}
	return errors.Join(errs...)
}

func (b GuardBackend) apply(ctx context.Context, c state.Change) error {
	guard, ok := c.New.(state.Guard)
	if !ok {
		return b.table().replace(ctx, nil)
	}
	v4, v6, err := parseCIDRs(guard.Peers)
	nodes4, nodes6, err2 := parseCIDRs(guard.Nodes)
	if err = errors.Join(err, err2); err != nil {
		return fmt.Errorf("%s: %w", guard.Noun(), err)
	}
	return b.table().replace(ctx, [][]netip.Prefix{v4, v6, nodes4, nodes6})
}
