package filter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// A gate is a chain that every forwarded packet of a family passes: a base
// chain of nf_tables at the hook forward, or FORWARD of the old iptables. A
// packet has to be accepted at each.
type gate struct {
	// family is unix.NFPROTO_IPV4, NFPROTO_IPV6 or NFPROTO_INET.
	family byte
	table  string
	// iptables is the variant that the chain belongs to, "nft" or "legacy";
	// "" is none.
	iptables string
	// drops: what no rule decides is dropped.
	drops bool
	// chain is the base chain, user is Docker's chain for the rules of others;
	// it is empty where there is none.
	chain, user chainRules
}

type chainRules struct {
	name  string
	rules []accept
}

// dockerUser is the chain that Docker makes for other people's rules, never
// touches, and jumps to before it looks at a packet itself.
const dockerUser = "DOCKER-USER"

// isolation is the chain with which containernetworking's firewall keeps
// bridges apart (ingressPolicy same-bridge and isolated): it drops, and returns
// what it does not drop.
const isolation = "CNI-ISOLATION-STAGE-1"

// An accept is a rule as far as it can be one of ours: an accept of what comes
// in by one link, or of what goes out by one.
type accept struct {
	in, out, comment string
	// verdict as iptables has it: ACCEPT, or the chain it jumps to.
	verdict string
	// more: it has conditions or effects that ours have not.
	more bool
	// handle is the rule's in nf_tables, args are what iptables-legacy -S
	// prints of it.
	handle uint64
	args   []string
}

// comment marks the rules of a network.
func comment(network string) string { return "ovs-gre:" + network }

// dev is the link that a rule of ours is for.
func (a accept) dev() string {
	if a.in != "" {
		return a.in
	}
	return a.out
}

// chains are those whose rules a packet meets at the gate.
func (g gate) chains() []chainRules {
	if g.leads() {
		return []chainRules{g.user, g.chain}
	}
	return []chainRules{g.chain}
}

// leads reports whether every packet gets to DOCKER-USER: after iptables -F
// FORWARD it is still there, but nothing leads to it.
func (g gate) leads() bool {
	return slices.ContainsFunc(g.chain.rules, func(a accept) bool {
		return a.verdict == dockerUser && !a.more && a.in == "" && a.out == ""
	})
}

// missing lists the rules that a network needs for dev at the gate and that
// are not there.
func (g gate) missing(network, dev string) []accept {
	var list []accept
	for _, want := range []accept{{in: dev}, {out: dev}} {
		want.comment, want.verdict = comment(network), "ACCEPT"
		if g.drops && !slices.ContainsFunc(g.chains(), func(c chainRules) bool { return slices.ContainsFunc(c.rules, want.is) }) {
			list = append(list, want)
		}
	}
	return list
}

// is reports whether a rule that is there does what a wanted one should.
func (a accept) is(have accept) bool {
	return !have.more && have.in == a.in && have.out == a.out && have.verdict == a.verdict && have.comment == a.comment
}

// observeForwards returns the network's Forwards: those of want that hold at
// every gate, and those that are not in want and of which a rule is left.
func observeForwards(gates []gate, network string, want state.Set) []state.Object {
	have := state.Set{}
	for _, g := range gates {
		for _, c := range []chainRules{g.chain, g.user} {
			for _, a := range c.rules {
				if a.comment == comment(network) {
					have.Put(state.Forward{Network: network, Dev: a.dev()})
				}
			}
		}
	}
	for id, o := range want {
		f, ok := o.(state.Forward)
		if !ok || f.Network != network {
			continue
		}
		have.Put(f)
		if slices.ContainsFunc(gates, func(g gate) bool { return len(g.missing(network, f.Dev)) > 0 }) {
			delete(have, id)
		}
	}
	return have.Sorted()
}

// applyForward puts the accepts of one link where they are missing, or removes
// them all.
func applyForward(ctx context.Context, c state.Change) error {
	var gates []gate
	err := read(ctx, func(r *reader) (err error) {
		gates, err = nftGates(r)
		return err
	})
	if err != nil && !errors.Is(err, ErrUnsupported) {
		return err
	}
	old, err := legacyGates(ctx)
	if c.New == nil && errors.Is(err, errNoProgram) {
		err = nil // what we could not have written to holds nothing of ours
	}
	errs := []error{err}
	for _, g := range append(gates, old...) {
		if f, ok := c.New.(state.Forward); ok {
			errs = append(errs, g.open(ctx, f))
		} else if f, ok := c.Old.(state.Forward); ok {
			errs = append(errs, g.remove(ctx, f, func(accept) bool { return true }))
		}
	}
	return errors.Join(errs...)
}

// open inserts what is missing at the top, then removes what somebody made of
// our rules for the same link.
func (g gate) open(ctx context.Context, f state.Forward) error {
	for _, a := range g.missing(f.Network, f.Dev) {
		if err := g.insert(ctx, a); err != nil {
			return fmt.Errorf("%s at %s: %w", f.Noun(), g, err)
		}
	}
	in := accept{in: f.Dev, comment: comment(f.Network), verdict: "ACCEPT"}
	out := accept{out: f.Dev, comment: comment(f.Network), verdict: "ACCEPT"}
	return g.remove(ctx, f, func(a accept) bool { return !in.is(a) && !out.is(a) })
}

// remove deletes the rules of f that match.
func (g gate) remove(ctx context.Context, f state.Forward, match func(accept) bool) error {
	var errs []error
	for _, c := range []chainRules{g.chain, g.user} {
		for _, a := range c.rules {
			if a.comment != comment(f.Network) || a.dev() != f.Dev || !match(a) {
				continue
			}
			if err := g.delete(ctx, c.name, a); err != nil {
				errs = append(errs, fmt.Errorf("%s at %s: %w", f.Noun(), g, err))
			}
		}
	}
	return errors.Join(errs...)
}

// insert puts a rule where it is met first, but behind the isolation of
// bridges: what that keeps apart is not for us to let through.
func (g gate) insert(ctx context.Context, a accept) error {
	c := g.chains()[0]
	where := c.name
	if g.iptables == "" {
		return g.insertNative(ctx, where, a)
	}
	isolated := slices.IndexFunc(c.rules, func(a accept) bool { return a.verdict == isolation }) // -1 is nowhere
	err := insertIPTables(ctx, g, where, isolated+2, a)
	if g.iptables == "nft" && (errors.Is(err, errNoProgram) || errors.Is(err, errIncompatible)) {
		// Nobody's iptables reads this chain, whatever its name.
		return g.insertNative(ctx, where, a)
	}
	return err
}

func (g gate) delete(ctx context.Context, chain string, a accept) error {
	if g.iptables == "legacy" {
		return deleteIPTables(ctx, g, chain, a)
	}
	c, err := g.conn(ctx)
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamily(g.family), Name: g.table}
	if err := c.DelRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: chain, Table: t}, Handle: a.handle}); err != nil {
		return err
	}
	if err := c.Flush(); !errors.Is(err, unix.ENOENT) {
		return g.explain(err)
	}
	return nil
}

// insertNative inserts a rule as nft would: iifname "obr0" counter accept comment "ovs-gre:blue".
func (g gate) insertNative(ctx context.Context, chain string, a accept) error {
	c, err := g.conn(ctx)
	if err != nil {
		return err
	}
	key, dev := expr.MetaKeyIIFNAME, a.in
	if a.out != "" {
		key, dev = expr.MetaKeyOIFNAME, a.out
	}
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, dev)
	t := &nftables.Table{Family: nftables.TableFamily(g.family), Name: g.table}
	c.InsertRule(&nftables.Rule{
		Table: t, Chain: &nftables.Chain{Name: chain, Table: t},
		Exprs: []expr.Any{
			&expr.Meta{Key: key, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: name},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictAccept},
		},
		UserData: userdata.AppendString(nil, userdata.TypeComment, a.comment),
	})
	return g.explain(c.Flush())
}

func (g gate) conn(ctx context.Context) (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error { return c.SetDeadline(deadline(ctx)) }))
}

// explain says what a refusal means after the table could be read.
func (g gate) explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: nobody but its owner may change the table (flags owner); with firewalld: firewall-cmd --zone=trusted --add-interface=<link>", err)
	}
	return err
}

// String names the gate: "chain FORWARD of table ip filter".
func (g gate) String() string {
	family := map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}[g.family]
	s := fmt.Sprintf("chain %s of table %s %s", g.chain.name, family, g.table)
	if g.iptables == "legacy" {
		s += " (iptables-legacy)"
	}
	return s
}

// nftGates reads the gates of nf_tables: the base chains at the hook forward,
// which are all of type filter.
func nftGates(r *reader) ([]gate, error) {
	chains, err := r.chains(unix.AF_UNSPEC, func(m message) bool {
		return attr(m, unix.NFTA_CHAIN_HOOK) != nil && slices.Contains([]byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, inet}, m[0])
	})
	if err != nil {
		return nil, err
	}
	gates := make([]gate, 0, len(chains))
	for _, c := range chains {
		if c.hook != unix.NF_INET_FORWARD {
			continue
		}
		g := gate{family: c.family, table: c.table, drops: c.policy == uint32(nftables.ChainPolicyDrop)}
		if g.chain, err = r.accepts(c.family, c.table, c.name); err != nil {
			return nil, err
		}
		// iptables' own names and priority; it has no family inet.
		if c.table == "filter" && c.name == "FORWARD" && c.family != inet && c.priority == 0 {
			g.iptables = "nft"
			if g.user, err = r.accepts(c.family, c.table, dockerUser); err != nil {
				return nil, err
			}
		}
		gates = append(gates, g)
	}
	return gates, nil
}

func (r *reader) accepts(family byte, table, name string) (chainRules, error) {
	rules, err := r.rules(family, table, name)
	c := chainRules{name: name}
	for _, rl := range rules {
		c.rules = append(c.rules, parseRule(rl))
	}
	return c, err
}

// parseRule reads a rule of nf_tables, made by nft or by iptables-nft.
func parseRule(r rule) accept {
	a := accept{handle: r.handle, comment: nftComment(r.userdata)}
	var loaded uint32 // what the register holds
	for _, e := range r.exprs {
		switch e.name {
		case "counter":
		case "meta":
			loaded = be32(find(e.data, unix.NFTA_META_KEY))
		case "cmp":
			a.compare(loaded, e.data)
		case "match":
			a.match(e.data)
		case "immediate":
			v := find(find(e.data, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT)
			switch int32(be32(find(v, unix.NFTA_VERDICT_CODE))) {
			case int32(expr.VerdictAccept):
				a.verdict = "ACCEPT"
			case int32(expr.VerdictJump):
				a.verdict = cstring(find(v, unix.NFTA_VERDICT_CHAIN))
			}
		default:
			a.more = true
		}
	}
	return a
}

// compare reads a condition on a link's name. One without the final zero is
// about all names that begin so: iifname "obr*".
func (a *accept) compare(loaded uint32, data []byte) {
	name := find(find(data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
	if be32(find(data, unix.NFTA_CMP_OP)) != unix.NFT_CMP_EQ || !slices.Contains(name, 0) {
		a.more = true
	}
	switch {
	case loaded == unix.NFT_META_IIFNAME && a.in == "":
		a.in = cstring(name)
	case loaded == unix.NFT_META_OIFNAME && a.out == "":
		a.out = cstring(name)
	default:
		a.more = true
	}
}

// match reads a match of iptables: struct xt_comment_info is the text alone.
func (a *accept) match(data []byte) {
	if cstring(find(data, unix.NFTA_MATCH_NAME)) != "comment" {
		a.more = true
		return
	}
	a.comment = cstring(find(data, unix.NFTA_MATCH_INFO))
}

// nftComment finds the comment in what nft keeps with a rule: a list of type,
// length and value, a byte each of the first two (libnftnl's udata.h).
func nftComment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == byte(userdata.TypeComment) {
			return strings.TrimSuffix(string(b[2:2+int(b[1])]), "\x00")
		}
		b = b[2+int(b[1]):]
	}
	return ""
}
