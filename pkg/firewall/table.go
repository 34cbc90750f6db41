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
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

const inet = byte(nftables.TableFamilyINet)

// An ownTable is a table of family inet that belongs to one network alone: its
// masquerade, or its guard. Its chains, rules and sets are always the same; only the
// elements of the sets differ.
type ownTable struct {
	name string
	// object is the object of the state that the table is, without its attributes.
	object state.Object
	sets   []addressSet
	chains []ownChain
}

// An ownChain is a base chain of an ownTable, as the kernel lists it, with the
// expressions of its rules.
type ownChain struct {
	chain
	rules [][]expr.Any
}

// An addressSet is an interval set of addresses.
type addressSet struct {
	name string
	key  nftables.SetDatatype
}

// listed is the set as the kernel lists it.
func (s addressSet) listed() set {
	return set{s.name, unix.NFT_SET_INTERVAL, s.key.GetNFTMagic(), s.key.Bytes}
}

// addChain adds a base chain with the policy accept.
func (t *ownTable) addChain(name string, typ nftables.ChainType, hook uint32, priority *nftables.ChainPriority, rules ...[]expr.Any) {
	t.chains = append(t.chains, ownChain{chain{family: inet, table: t.name, name: name, typ: string(typ), hook: hook,
		priority: int32(*priority), policy: uint32(nftables.ChainPolicyAccept)}, rules})
}

// errAltered is wrapped by errors about an ownTable that has another form than we
// give it.
var errAltered = errors.New("altered")

// An altered takes the place of the object of an ownTable that has another form. It
// differs from every wanted object, so that the table is replaced or removed.
type altered struct {
	state.Object
	table, how string
}

func (a altered) String() string { return fmt.Sprintf("nft list table inet %s  # %s", a.table, a.how) }

// observe reads the CIDRs of the table's sets, in the order of t.sets. Where there is
// no such table, it returns none; where the table has another form, instead is an
// altered.
func (t ownTable) observe(r *reader) (lists [][]netip.Prefix, instead state.Object, err error) {
	if err = t.check(r); err == nil {
		lists, err = t.elements(r)
	}
	switch {
	case err == nil:
		return lists, nil, nil
	case errors.Is(err, os.ErrNotExist):
		return nil, nil, nil
	case errors.Is(err, errAltered):
		return nil, altered{t.object, t.name, err.Error()}, nil
	}
	return nil, nil, err
}

func (t ownTable) elements(r *reader) (lists [][]netip.Prefix, err error) {
	for _, s := range t.sets {
		elems, err := r.elements(inet, t.name, s.name)
		if err != nil {
			return nil, err
		}
		list, err := cidrs(elems)
		if err != nil {
			return nil, fmt.Errorf("%w: set %s has %w", errAltered, s.name, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// check compares everything but the elements of the sets. The error wraps errAltered,
// or os.ErrNotExist where there is no table.
func (t ownTable) check(r *reader) error {
	flags, err := r.tableFlags(inet, t.name)
	if err != nil {
		return err
	}
	if flags != 0 { // such as dormant, with which its chains see no packet
		return fmt.Errorf("%w: the table has flags %#x", errAltered, flags)
	}
	chains, err := r.chains(t.name)
	if err != nil {
		return err
	}
	chains = slices.DeleteFunc(chains, func(c chain) bool { return c.family != inet || c.table != t.name })
	if len(chains) != len(t.chains) {
		return fmt.Errorf("%w: %d chains, not %d", errAltered, len(chains), len(t.chains))
	}
	for _, c := range t.chains {
		if !slices.Contains(chains, c.chain) {
			return fmt.Errorf("%w: there is no chain %s with our type, hook, priority and policy", errAltered, c.name)
		}
		rules, err := r.rules(inet, t.name, c.name)
		if err != nil {
			return err
		}
		if !slices.EqualFunc(rules, c.rules, func(have rule, want []expr.Any) bool { return equalExprs(inet, have.exprs, want) }) {
			return fmt.Errorf("%w: the rules of chain %s are not ours", errAltered, c.name)
		}
	}
	sets, err := r.sets(inet, t.name)
	if err != nil {
		return err
	}
	for _, s := range t.sets {
		if !slices.Contains(sets, s.listed()) {
			return fmt.Errorf("%w: no set %s of our type", errAltered, s.name)
		}
	}
	if len(sets) != len(t.sets) {
		return fmt.Errorf("%w: %d sets, not %d", errAltered, len(sets), len(t.sets))
	}
	return nil
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

// confirmed is what look returns of an ownTable. While a transaction replaces a table
// by another of its name, the kernel lists no rules for a moment
// (nf_tables_dump_rules); a table that really is altered still is so a moment later.
func confirmed(look func() (state.Object, error)) (o state.Object, err error) {
	o, err = look()
	for range 3 {
		if _, ok := o.(altered); !ok {
			break
		}
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // nothing announces the end of it
		o, err = look()
	}
	return o, err
}

// chunk is how many elements are in one message at most: a netlink attribute has at
// most 65535 bytes, an element of IPv6 36.
const chunk = 1000

// replace makes the table, in the place of one that is there, in one transaction.
// lists are the CIDRs of its sets; nil deletes the table, if there is one.
func (t ownTable) replace(ctx context.Context, lists [][]netip.Prefix) error {
	// Flush would wait on a kernel without nf_tables, which does not answer a batch; it
	// answers a request.
	if err := read(ctx, func(*reader) error { return nil }); err != nil {
		if lists == nil && errors.Is(err, ErrUnsupported) {
			return nil
		}
		return err
	}
	// The kernel takes the transaction in one piece. The buffers are not smaller than a
	// socket's own.
	size := 1 << 18
	for _, list := range lists {
		size += 64 * len(list) // an IPv6 interval: two keys, four headers each, a flag
	}
	conn, err := connect(ctx, size)
	if err == nil {
		err = t.transact(conn, lists)
	}
	if err != nil {
		return fmt.Errorf("nftables table %s: %w", t.name, explain(err))
	}
	return nil
}

func (t ownTable) transact(conn *nftables.Conn, lists [][]netip.Prefix) error {
	// A table that was just added can be deleted, whether it was there before or not.
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: t.name})
	conn.DelTable(table)
	if lists == nil {
		return conn.Flush()
	}
	conn.AddTable(table)
	for i, s := range t.sets {
		set := &nftables.Set{Table: table, Name: s.name, KeyType: s.key, Interval: true}
		if err := conn.AddSet(set, nil); err != nil {
			return err
		}
		for elems := range slices.Chunk(boundaries(lists[i]), chunk) {
			if err := conn.SetAddElements(set, elems); err != nil {
				return err
			}
		}
	}
	for _, c := range t.chains {
		policy, hook, priority := nftables.ChainPolicy(c.policy), nftables.ChainHook(c.hook), nftables.ChainPriority(c.priority)
		made := conn.AddChain(&nftables.Chain{Table: table, Name: c.name, Type: nftables.ChainType(c.typ),
			Hooknum: &hook, Priority: &priority, Policy: &policy})
		for _, exprs := range c.rules {
			conn.AddRule(&nftables.Rule{Table: table, Chain: made, Exprs: exprs})
		}
	}
	return conn.Flush()
}
