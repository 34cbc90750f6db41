package firewall

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// applyForwards inserts missing accept rules, and removes unwanted ones. It surveys again
// after each change: packets that one rule accepts may be dropped by another.
func (b *Backend) applyForwards(ctx context.Context, changes []state.Change) error {
	want, gone := state.Set{}, map[state.Object]bool{}
	for _, c := range changes {
		if c.New != nil {
			want.Put(c.New)
		} else {
			gone[c.Old] = true
		}
	}
	if len(want) == 0 && len(gone) == 0 {
		return nil
	}
	var failed error
	for range 20 {
		_, surveys, err := b.look(ctx, want)
		if err != nil {
			return err
		}
		again := false
		failed = nil
		for _, s := range surveys {
			more, err := b.write(ctx, s, gone)
			failed, again = errors.Join(failed, err), again || more
		}
		// ErrNotExist: a rule by whose handle another was to be placed is gone.
		if !again || failed != nil && !errors.Is(failed, os.ErrNotExist) {
			return failed
		}
	}
	if failed == nil {
		failed = fmt.Errorf("forward accepts of network %s: somebody removes them as they are made", b.network)
	}
	return failed
}

// write makes the changes of one survey, and reports whether another is needed.
func (b *Backend) write(ctx context.Context, s survey, gone map[state.Object]bool) (again bool, err error) {
	var errs []error
	if slices.ContainsFunc(s.obstacles, func(o *obstacle) bool { return o.base.legacy }) {
		// Its rules are placed by number: the last place must be written first.
		slices.Reverse(s.obstacles)
		slices.SortStableFunc(s.obstacles, func(a, b *obstacle) int { return cmp.Compare(b.at.at, a.at.at) })
	}
	for _, o := range s.obstacles {
		switch o.remedyKind {
		case foreign:
			errs = append(errs, fmt.Errorf("%s: %s, and no rule of another table can accept it", o.f.Noun(), o))
		case mendable:
			again = true
			anew, err := o.mend(ctx)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s at %s: %w", o.f.Noun(), o.base, o.base.explain(err)))
			}
			if anew {
				return true, errors.Join(errs...)
			}
		}
	}
	for _, r := range s.unwanted {
		if gone[r.object()] {
			errs = append(errs, r.remove(ctx))
		}
	}
	return again, errors.Join(errs...)
}

func (r ownedRule) remove(ctx context.Context) error {
	err := remove(ctx, r.base, []*rule{r.rule})
	if err != nil {
		return fmt.Errorf("rule %s at %s: %w", r.text(), r.base, r.base.explain(err))
	}
	return nil
}

// mend inserts the missing rules, and removes rules of the same Forward at places that no
// packet reaches. anew: it has only removed some, and must be called again.
func (o obstacle) mend(ctx context.Context) (anew bool, err error) {
	rules, err := o.rules.owned(o.base, comment(o.f.Network, o.f.Routes), false)
	if err != nil {
		return false, err
	}
	p, err := packets(o.f)
	if err != nil {
		return false, err
	}
	same := slices.Concat(forms(o.f, p[0], true), forms(o.f, p[0], false))
	useless := slices.DeleteFunc(rules, func(r *rule) bool { return slices.Contains(o.ours, r) || !slices.Contains(same, r.form()) })
	switch {
	case o.base.legacy && len(useless) > 0:
		// -D deletes the first rule that is equal, and changes the numbers of others.
		return true, remove(ctx, o.base, useless)
	case o.base.legacy:
		return false, insertSaved(ctx, o.at.chain, o.at.at, o.missing)
	}
	c, err := connect(ctx, 0)
	if err != nil {
		return false, err
	}
	o.insert(c)
	for _, r := range useless {
		delRule(c, o.base, r)
	}
	return false, c.Flush()
}

// insert inserts the missing rules in front of o.at, in order.
func (o obstacle) insert(c *nftables.Conn) {
	t, ch := o.at.chain.native()
	for _, f := range o.missing {
		r := &nftables.Rule{Table: t, Chain: ch, Exprs: f.exprs(o.asIPTables, o.base.family)}
		if !o.asIPTables {
			r.UserData = userdata.AppendString(nil, userdata.TypeComment, f.comment)
		}
		if o.at.at < len(o.at.chain.rules) {
			r.Position = o.at.chain.rules[o.at.at].handle
			c.InsertRule(r)
		} else {
			c.AddRule(r)
		}
	}
}

func remove(ctx context.Context, g baseChain, rules []*rule) error {
	var errs []error
	for _, r := range rules {
		if g.legacy {
			errs = append(errs, deleteSaved(ctx, g.family, r))
			continue
		}
		c, err := connect(ctx, 0)
		if err != nil {
			return err
		}
		delRule(c, g, r)
		if err := c.Flush(); !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func delRule(c *nftables.Conn, g baseChain, r *rule) {
	t, ch := chainID{family: g.family, table: g.table, name: r.chain}.native()
	_ = c.DelRule(&nftables.Rule{Table: t, Chain: ch, Handle: r.handle}) // it fails where there is no handle
}

// readable reports whether iptables can read the table, because all its rules have only
// expressions that iptables makes. Otherwise rules of nft are in it.
func (s *ruleset) readable(g baseChain) (bool, error) {
	if !g.iptables || g.legacy {
		return g.iptables, nil
	}
	rules, err := s.r.rules(g.family, g.table, "")
	known := []string{"match", "target", "payload", "meta", "cmp", "bitwise", "counter", "immediate", "range", "limit", "log"}
	for _, r := range rules {
		if slices.ContainsFunc(r.exprs, func(e expression) bool { return !slices.Contains(known, e.name) }) {
			return false, err
		}
	}
	return true, err
}

// exprs are the rule's expressions, in the form of iptables or of nft.
func (f form) exprs(iptables bool, table byte) []expr.Any {
	const reg = unix.NFT_REG_1
	var list []expr.Any
	for _, l := range []struct {
		key  expr.MetaKey
		name string
	}{{expr.MetaKeyIIFNAME, f.in}, {expr.MetaKeyOIFNAME, f.out}} {
		if l.name != "" {
			name := make([]byte, unix.IFNAMSIZ)
			copy(name, l.name)
			if iptables {
				name = name[:len(l.name)+1]
			}
			list = append(list, &expr.Meta{Key: l.key, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: name})
		}
	}
	if family := f.family(); family != 0 && table == inet {
		list = append(list, &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{family}})
	}
	list = append(list, addressIn(f.from, 12, 8)...)
	list = append(list, addressIn(f.to, 16, 24)...)
	list = append(list, f.tracking(iptables)...)
	if iptables {
		text := xt.Comment(f.comment)
		list = append(list, &expr.Match{Name: "comment", Info: &text})
	}
	return append(list, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
}

func (f form) family() byte {
	switch p := f.to; {
	case !p.IsValid() && !f.from.IsValid():
		return 0
	case p.Addr().Is6() || f.from.Addr().Is6():
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// addressIn is a condition on an address at an offset of the IPv4 or of the
// IPv6 header (RFC 791, RFC 8200).
func addressIn(p netip.Prefix, at4, at6 uint32) []expr.Any {
	if !p.IsValid() {
		return nil
	}
	const reg = unix.NFT_REG_1
	at, b := at4, p.Masked().Addr().AsSlice()
	if len(b) == 16 {
		at = at6
	}
	size := uint32(len(b))
	list := []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: size}}
	if p.Bits() < 8*len(b) {
		mask := make([]byte, len(b))
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		list = append(list, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: size, Mask: mask, Xor: make([]byte, len(b))})
	}
	return append(list, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: b})
}

// tracking is the condition on the state of the connection.
func (f form) tracking(iptables bool) []expr.Any {
	if f.state == "" {
		return nil
	}
	if iptables {
		return []expr.Any{&expr.Match{Name: "conntrack", Rev: 3, Info: &xt.ConntrackMtinfo3{ConntrackMtinfo2: xt.ConntrackMtinfo2{
			ConntrackMtinfoBase: xt.ConntrackMtinfoBase{MatchFlags: uint16(xt.ConntrackState)},
			StateMask:           ctEstablished | ctRelated | ctStateDNAT,
		}}}}
	}
	const reg = unix.NFT_REG_1
	key, mask := expr.CtKeySTATE, uint32(ctEstablished|ctRelated)
	if f.state == stateDNAT {
		key, mask = expr.CtKeySTATUS, ctDNAT
	}
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}
