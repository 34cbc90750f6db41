package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

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
type GuardBackend struct{ network, link string }

var _ state.Backend = GuardBackend{}

// NewGuardBackend returns the backend of the state.Guard of a network whose
// packets go by link.
func NewGuardBackend(network, link string) GuardBackend { return GuardBackend{network, link} }

var (
	guarded4  = addressSet{"peers4", nftables.TypeIPAddr}
	guarded6  = addressSet{"peers6", nftables.TypeIP6Addr}
	guardSets = []addressSet{guarded4, guarded6}
)

// guardChains are the chains of a guard, as the kernel tells them, and their
// rules. The offsets are those of the addresses in the IPv4 and IPv6 headers
// (RFC 791, RFC 8200).
func guardChains(network, link string) ([]chain, [][][]expr.Any) {
	base := func(name string, hook uint32, priority *nftables.ChainPriority) chain {
		return chain{family: inet, table: config.GuardName(network), name: name, typ: string(nftables.ChainTypeFilter), hook: hook,
			priority: int32(*priority), policy: uint32(nftables.ChainPolicyAccept)}
	}
	chains := []chain{
		base("prerouting", unix.NF_INET_PRE_ROUTING, nftables.ChainPriorityRaw),
		base("postrouting", unix.NF_INET_POST_ROUTING, nftables.ChainPriorityFilter),
	}
	return chains, [][][]expr.Any{
		{
			guardRule(expr.MetaKeyIIFNAME, link, unix.NFPROTO_IPV4, 12, 4, guarded4),
			guardRule(expr.MetaKeyIIFNAME, link, unix.NFPROTO_IPV6, 8, 16, guarded6),
		}, {
			guardRule(expr.MetaKeyOIFNAME, link, unix.NFPROTO_IPV4, 16, 4, guarded4),
			guardRule(expr.MetaKeyOIFNAME, link, unix.NFPROTO_IPV6, 24, 16, guarded6),
		},
	}
}

func guardRule(key expr.MetaKey, link string, proto byte, offset, size uint32, peers addressSet) []expr.Any {
	const reg = unix.NFT_REG_1
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, link)
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: name},
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{proto}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Lookup{SourceRegister: reg, SetName: peers.name},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
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
	_, wanted := want[state.Guard{Network: b.network}.ID()]
	have := state.Set{}
	err := read(ctx, func(r *reader) error {
		clear(have)
		peers, err := b.look(r)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case errors.Is(err, errAltered):
			have.Put(alteredGuard{b.network, err.Error()})
			return nil
		case err != nil:
			return err
		}
		have.Put(state.Guard{Network: b.network, Link: b.link, Peers: peers})
		return nil
	})
	if errors.Is(err, ErrUnsupported) && !wanted {
		err = nil
	}
	return have, err
}

// look reads the guard's peers. The error wraps errAltered where its chains are
// not those for the link, and os.ErrNotExist where there is no table.
func (b GuardBackend) look(r *reader) (peers string, err error) {
	name := config.GuardName(b.network)
	flags, err := r.tableFlags(inet, name)
	if err != nil {
		return "", err
	}
	if flags != 0 {
		return "", fmt.Errorf("%w: the table has flags %#x", errAltered, flags)
	}
	chains, err := r.chains(name)
	if err != nil {
		return "", err
	}
	chains = slices.DeleteFunc(chains, func(c chain) bool { return c.family != inet || c.table != name })
	want, rules := guardChains(b.network, b.link)
	if len(chains) != len(want) {
		return "", fmt.Errorf("%w: %d chains, not %d", errAltered, len(chains), len(want))
	}
	for i, c := range want {
		have, err := r.rules(inet, name, c.name)
		if err != nil {
			return "", err
		}
		ours := slices.EqualFunc(have, rules[i], func(h rule, w []expr.Any) bool { return equalExprs(inet, h.exprs, w) })
		if !slices.Contains(chains, c) || !ours {
			return "", fmt.Errorf("%w: chain %s is not ours", errAltered, c.name)
		}
	}
	sets, err := r.sets(inet, name)
	if err != nil {
		return "", err
	}
	var lists [2][]netip.Prefix
	for i, s := range guardSets {
		if !slices.Contains(sets, s.want()) {
			return "", fmt.Errorf("%w: no set %s of our type", errAltered, s.name)
		}
		if lists[i], err = observeSet(r, name, s.name); err != nil {
			return "", err
		}
	}
	return joinCIDRs(lists[0], lists[1]), nil
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
	if err != nil {
		return err
	}
	n := 1<<18 + 64*(len(v4)+len(v6)) // as batch.size has it
	conn, err := nftables.New(nftables.WithSockOptions(func(s *netlink.Conn) error {
		return errors.Join(s.SetDeadline(deadline(ctx)), s.SetWriteBuffer(n), s.SetReadBuffer(n))
	}))
	if err != nil {
		return fmt.Errorf("%s: %w", state.Guard{Network: b.network}.Noun(), err)
	}
	t := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: config.GuardName(b.network)})
	conn.DelTable(t)
	if c.New != nil {
		conn.AddTable(t)
		err = b.fill(conn, t, guard.Link, v4, v6)
	}
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		return fmt.Errorf("nftables table %s: %w", t.Name, explain(err))
	}
	return nil
}

func (b GuardBackend) fill(conn *nftables.Conn, t *nftables.Table, link string, lists ...[]netip.Prefix) error {
	for i, s := range guardSets {
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
	chains, rules := guardChains(b.network, link)
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
