package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/state"
)

// The table of a network always has this form, whatever the families of its
// subnets; only the elements of the sets differ:
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
const (
	inet        = byte(nftables.TableFamilyINet)
	postrouting = "postrouting"
)

type addressSet struct {
	name string
	key  nftables.SetDatatype
}

var (
	sources4  = addressSet{"sources4", nftables.TypeIPAddr}
	excluded4 = addressSet{"excluded4", nftables.TypeIPAddr}
	sources6  = addressSet{"sources6", nftables.TypeIP6Addr}
	excluded6 = addressSet{"excluded6", nftables.TypeIP6Addr}
	allSets   = []addressSet{sources4, excluded4, sources6, excluded6}
)

// masqueradeRules are the expressions of the two rules. Offsets are those of
// the addresses in the IPv4 and IPv6 headers (RFC 791, RFC 8200).
func masqueradeRules() [][]expr.Any {
	return [][]expr.Any{
		masqueradeRule(unix.NFPROTO_IPV4, 12, 16, 4, sources4, excluded4),
		masqueradeRule(unix.NFPROTO_IPV6, 8, 24, 16, sources6, excluded6),
	}
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

// errAltered is wrapped by errors about a table of ours that is not as we make it.
var errAltered = errors.New("altered")

// altered is a network's table that is no masquerade of ours any more. It
// stands where the state.Masquerade would, and differs from every one, so that
// the table is replaced, or removed.
type altered struct{ network, how string }

func (a altered) ID() state.ID { return state.Masquerade{Network: a.network}.ID() }
func (a altered) Noun() string { return state.Masquerade{Network: a.network}.Noun() }
func (a altered) String() string {
	return fmt.Sprintf("nft list table inet %s  # %s", config.FirewallTable(a.network), a.how)
}

// observeMasquerade returns a state.Masquerade, an altered, or nil where the
// network has no table.
func observeMasquerade(r *reader, network string) (state.Object, error) {
	name := config.FirewallTable(network)
	err := checkTable(r, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var lists [4][]netip.Prefix
	for i, s := range allSets {
		if err == nil {
			lists[i], err = observeSet(r, name, s.name)
		}
	}
	if errors.Is(err, errAltered) {
		return altered{network, err.Error()}, nil
	}
	if err != nil {
		return nil, err
	}
	return state.Masquerade{Network: network, Sources: joinCIDRs(lists[0], lists[2]), Excluded: joinCIDRs(lists[1], lists[3])}, nil
}

// checkTable compares everything but the sets' elements with what we make. The
// error wraps errAltered, or os.ErrNotExist where there is no table.
func checkTable(r *reader, name string) error {
	flags, err := r.tableFlags(inet, name)
	if err != nil {
		return err
	}
	if flags != 0 {
		return fmt.Errorf("%w: the table has flags %#x", errAltered, flags) // dormant: it does nothing
	}
	chains, err := r.chains(name)
	if err != nil {
		return err
	}
	chains = slices.DeleteFunc(chains, func(c chain) bool { return c.family != inet || c.table != name })
	if len(chains) != 1 || chains[0] != masqueradeChain(name) {
		return fmt.Errorf("%w: its one chain is not %s with our type, hook, priority and policy", errAltered, postrouting)
	}
	rules, err := r.rules(inet, name, postrouting)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(rules, masqueradeRules(), func(have rule, want []expr.Any) bool { return equalExprs(inet, have.exprs, want) }) {
		return fmt.Errorf("%w: the rules of chain %s are not ours", errAltered, postrouting)
	}
	sets, err := r.sets(inet, name)
	if err != nil {
		return err
	}
	for _, s := range allSets {
		if !slices.Contains(sets, s.want()) {
			return fmt.Errorf("%w: no set %s of our type", errAltered, s.name)
		}
	}
	if len(sets) != len(allSets) {
		return fmt.Errorf("%w: %d sets, not %d", errAltered, len(sets), len(allSets))
	}
	return nil
}

// observeSet reads one set's CIDRs. The error wraps errAltered.
func observeSet(r *reader, table, name string) ([]netip.Prefix, error) {
	elems, err := r.elements(inet, table, name)
	if err != nil {
		return nil, err
	}
	list, err := cidrs(elems)
	if err != nil {
		return nil, fmt.Errorf("%w: set %s has %w", errAltered, name, err)
	}
	return list, nil
}

// masqueradeChain is our chain as the kernel tells it.
func masqueradeChain(table string) chain {
	return chain{
		family: inet, table: table, name: postrouting,
		typ: string(nftables.ChainTypeNAT), hook: unix.NF_INET_POST_ROUTING,
		priority: int32(*nftables.ChainPriorityNATSource), policy: uint32(nftables.ChainPolicyAccept),
	}
}

// want is the set as the kernel tells it.
func (s addressSet) want() set {
	return set{s.name, unix.NFT_SET_INTERVAL, s.key.GetNFTMagic(), s.key.Bytes}
}

// equalExprs reports whether the kernel's expressions are those that we make.
func equalExprs(family byte, have []expression, want []expr.Any) bool {
	return slices.EqualFunc(have, want, func(h expression, w expr.Any) bool {
		b, err := expr.Marshal(family, w)
		if err != nil || h.name != parse(b).text(unix.NFTA_EXPR_NAME) {
			return false
		}
		if _, is := w.(*expr.Rt); is { // which the library cannot read back
			return bytes.Equal(h.data, parse(b).get(unix.NFTA_EXPR_DATA))
		}
		got := reflect.New(reflect.TypeOf(w).Elem()).Interface().(expr.Any)
		return expr.Unmarshal(family, h.data, got) == nil && reflect.DeepEqual(got, w)
	})
}

// applyMasquerade replaces the network's table, or deletes it. An absent one
// is deleted already.
func applyMasquerade(ctx context.Context, c state.Change) error {
	// A kernel without nf_tables does not answer a batch message by message,
	// and Flush would wait; to a question it answers.
	if err := read(ctx, func(*reader) error { return nil }); err != nil {
		if c.New == nil && errors.Is(err, ErrUnsupported) {
			return nil
		}
		return err
	}
	obj := c.New
	if obj == nil {
		obj = c.Old
	}
	network := obj.ID().Name
	b, err := newBatch(ctx, c.New)
	if err != nil {
		return fmt.Errorf("masquerade of network %s: %w", network, err)
	}
	err = b.replace(network)
	switch {
	case errors.Is(err, os.ErrNotExist):
		// Of what the transaction names, only kernel modules can be missing.
		return fmt.Errorf("nftables table %s: the kernel has no NAT for nftables (CONFIG_NFT_NAT, CONFIG_NFT_MASQ): %w",
			config.FirewallTable(network), err)
	case err != nil:
		return fmt.Errorf("nftables table %s: %w", config.FirewallTable(network), explain(err))
	}
	return nil
}

// A batch is one transaction that replaces a network's table.
type batch struct {
	conn *nftables.Conn
	// sets are the elements of allSets; nil means that the table goes.
	sets [][]netip.Prefix
}

// newBatch readies a transaction that makes m, which is a state.Masquerade or nil.
func newBatch(ctx context.Context, m state.Object) (*batch, error) {
	var b batch
	if m, ok := m.(state.Masquerade); ok {
		src4, src6, err := parseCIDRs(m.Sources)
		if err != nil {
			return nil, err
		}
		exc4, exc6, err := parseCIDRs(m.Excluded)
		if err != nil {
			return nil, err
		}
		b.sets = [][]netip.Prefix{src4, exc4, src6, exc6}
	}
	var err error
	b.conn, err = connect(ctx, b.size())
	return &b, err
}

// size bounds the bytes of the transaction, which the kernel takes in one
// piece, and of the answers. It is not less than what sockets have anyway.
func (b *batch) size() int {
	n := 1 << 18
	for _, s := range b.sets {
		n += 64 * len(s) // an IPv6 interval: two keys, four headers each, a flag
	}
	return n
}

// chunk is how many elements go into one message: a netlink attribute has at
// most 65535 bytes, an element of IPv6 36.
const chunk = 1000

// replace sends the transaction. Adding the table first lets it be deleted
// whether it was there or not.
func (b *batch) replace(network string) error {
	t := b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: config.FirewallTable(network)})
	b.conn.DelTable(t)
	if b.sets == nil {
		return b.conn.Flush()
	}
	b.conn.AddTable(t)
	for i, s := range allSets {
		set := &nftables.Set{Table: t, Name: s.name, KeyType: s.key, Interval: true}
		if err := b.conn.AddSet(set, nil); err != nil {
			return err
		}
		for elems := range slices.Chunk(boundaries(b.sets[i]), chunk) {
			if err := b.conn.SetAddElements(set, elems); err != nil {
				return err
			}
		}
	}
	policy := nftables.ChainPolicyAccept
	c := b.conn.AddChain(&nftables.Chain{
		Table: t, Name: postrouting, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &policy,
	})
	for _, exprs := range masqueradeRules() {
		b.conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: exprs})
	}
	return b.conn.Flush()
}
