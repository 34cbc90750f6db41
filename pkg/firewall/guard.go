package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
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

// guardSets are the sets of a guard of this form.
func guardSets(form state.Guard) []addressSet {
	if form.Tunnels == "" {
		return []addressSet{guarded4, guarded6}
	}
	return []addressSet{guarded4, guarded6, nodes4, nodes6}
}

// guardChains are the chains of a guard of this form, as the kernel tells them, and
// their rules. The offsets are those of the addresses in the IPv4 and IPv6 headers
// (RFC 791, RFC 8200).
func guardChains(form state.Guard) ([]chain, [][][]expr.Any) {
	base := func(name string, hook uint32, priority *nftables.ChainPriority) chain {
		return chain{family: inet, table: config.GuardName(form.Network), name: name, typ: string(nftables.ChainTypeFilter), hook: hook,
			priority: int32(*priority), policy: uint32(nftables.ChainPolicyAccept)}
	}
	source := func(otherwise guardCondition, v4, v6 addressSet) [][]expr.Any {
		return [][]expr.Any{otherwise.drop(unix.NFPROTO_IPV4, 12, 4, v4), otherwise.drop(unix.NFPROTO_IPV6, 8, 16, v6)}
	}
	destination := func(otherwise guardCondition, v4, v6 addressSet) [][]expr.Any {
		return [][]expr.Any{otherwise.drop(unix.NFPROTO_IPV4, 16, 4, v4), otherwise.drop(unix.NFPROTO_IPV6, 24, 16, v6)}
	}
	chains := []chain{
		base("prerouting", unix.NF_INET_PRE_ROUTING, nftables.ChainPriorityRaw),
		base("postrouting", unix.NF_INET_POST_ROUTING, nftables.ChainPriorityFilter),
	}
	rules := [][][]expr.Any{
		source(guardCondition{before: notBy(expr.MetaKeyIIFNAME, form.Link)}, guarded4, guarded6),
		destination(guardCondition{before: notBy(expr.MetaKeyOIFNAME, form.Link)}, guarded4, guarded6),
	}
	if form.Tunnels == "" {
		return chains, rules
	}
	const reg = unix.NFT_REG_1
	missing := &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{0}}
	in := append(outer(form.Tunnels), &expr.Meta{Key: metaSecpath, Register: reg}, missing)
	out := append(outer(form.Tunnels), &expr.Rt{Key: rtIPsec, Register: reg}, missing)
	return append(chains,
			base("input", unix.NF_INET_LOCAL_IN, nftables.ChainPriorityFilter),
			base("output", unix.NF_INET_LOCAL_OUT, nftables.ChainPriorityFilter)),
		append(rules,
			source(guardCondition{behind: in}, nodes4, nodes6),
			destination(guardCondition{behind: out}, nodes4, nodes6))
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

// alteredGuard is a guard that is not as we make it. It stands where the
// state.Guard would.
type alteredGuard struct{ network, how string }

func (a alteredGuard) ID() state.ID { return state.Guard{Network: a.network}.ID() }
func (a alteredGuard) Noun() string { return state.Guard{Network: a.network}.Noun() }
func (a alteredGuard) String() string {
	return fmt.Sprintf("nft list table inet %s  # %s", config.GuardName(a.network), a.how)
}

// Observe implements state.Backend. The errors are Backend's.
func (b GuardBackend) Observe(ctx context.Context, want state.Set) (state.Set, error) {
	_, wanted := want[state.Guard{Network: b.form.Network}.ID()]
	have := state.Set{}
	err := read(ctx, func(r *reader) error {
		clear(have)
		guard, err := b.look(r)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case errors.Is(err, errAltered):
			have.Put(alteredGuard{b.form.Network, err.Error()})
			return nil
		case err != nil:
			return err
		}
		have.Put(guard)
		return nil
	})
	if errors.Is(err, ErrUnsupported) && !wanted {
		err = nil
	}
	return have, err
}

// look reads the guard. The error wraps errAltered where its chains are not those of
// its form, and os.ErrNotExist where there is no table.
func (b GuardBackend) look(r *reader) (guard state.Guard, err error) {
	name := config.GuardName(b.form.Network)
	flags, err := r.tableFlags(inet, name)
	if err != nil {
		return guard, err
	}
	if flags != 0 {
		return guard, fmt.Errorf("%w: the table has flags %#x", errAltered, flags)
	}
	chains, err := r.chains(name)
	if err != nil {
		return guard, err
	}
	chains = slices.DeleteFunc(chains, func(c chain) bool { return c.family != inet || c.table != name })
	want, rules := guardChains(b.form)
	if len(chains) != len(want) {
		return guard, fmt.Errorf("%w: %d chains, not %d", errAltered, len(chains), len(want))
	}
	for i, c := range want {
		have, err := r.rules(inet, name, c.name)
		if err != nil {
			return guard, err
		}
		ours := slices.EqualFunc(have, rules[i], func(h rule, w []expr.Any) bool { return equalExprs(inet, h.exprs, w) })
		if !slices.Contains(chains, c) || !ours {
			return guard, fmt.Errorf("%w: chain %s is not ours", errAltered, c.name)
		}
	}
	sets, err := r.sets(inet, name)
	if err != nil {
		return guard, err
	}
	var lists [4][]netip.Prefix
	for i, s := range guardSets(b.form) {
		if !slices.Contains(sets, s.want()) {
			return guard, fmt.Errorf("%w: no set %s of our type", errAltered, s.name)
		}
		if lists[i], err = observeSet(r, name, s.name); err != nil {
			return guard, err
		}
	}
	guard = b.form
	guard.Peers, guard.Nodes = joinCIDRs(lists[0], lists[1]), joinCIDRs(lists[2], lists[3])
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
	// A kernel without nf_tables answers to a question, not to a batch.
	if err := read(ctx, func(*reader) error { return nil }); err != nil {
		if c.New == nil && errors.Is(err, ErrUnsupported) {
			return nil
		}
		return err
	}
	guard, _ := c.New.(state.Guard)
	v4, v6, err := parseCIDRs(guard.Peers)
	nodes4, nodes6, err2 := parseCIDRs(guard.Nodes)
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	lists := [][]netip.Prefix{v4, v6, nodes4, nodes6}
	n := 1<<18 + 64*len(slices.Concat(lists...)) // as batch.size has it
	conn, err := nftables.New(nftables.WithSockOptions(func(s *netlink.Conn) error {
		return errors.Join(s.SetDeadline(deadline(ctx)), s.SetWriteBuffer(n), s.SetReadBuffer(n))
	}))
	if err != nil {
		return fmt.Errorf("%s: %w", state.Guard{Network: b.form.Network}.Noun(), err)
	}
	t := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: config.GuardName(b.form.Network)})
	conn.DelTable(t)
	if c.New != nil {
		conn.AddTable(t)
		err = b.fill(conn, t, lists)
	}
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		return fmt.Errorf("nftables table %s: %w", t.Name, explain(err))
	}
	return nil
}

func (b GuardBackend) fill(conn *nftables.Conn, t *nftables.Table, lists [][]netip.Prefix) error {
	for i, s := range guardSets(b.form) {
		set := &nftables.Set{Table: t, Name: s.name, KeyType: s.key, Interval: true}
		if err := conn.AddSet(set, nil); err != nil {
			return err
		}
		for elems := range slices.Chunk(boundaries(lists[i]), chunk) {
			if err := conn.SetAddElements(set, elems); err != nil {
				return err
			}
		}
	}
	chains, rules := guardChains(b.form)
	for i, c := range chains {
		policy, hook, priority := nftables.ChainPolicyAccept, nftables.ChainHook(c.hook), nftables.ChainPriority(c.priority)
		made := conn.AddChain(&nftables.Chain{Table: t, Name: c.name, Type: nftables.ChainTypeFilter,
			Hooknum: &hook, Priority: &priority, Policy: &policy})
		for _, exprs := range rules[i] {
			conn.AddRule(&nftables.Rule{Table: t, Chain: made, Exprs: exprs})
		}
	}
	return nil
}
