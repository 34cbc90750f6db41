package doctor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A ruleset answers what nf_tables would do with a packet. iptables-nft's
// chains are in it, those of the old iptables are not.
type ruleset struct {
	chains []*nftables.Chain
	rules  map[*nftables.Chain][]*nftables.Rule
}

// A packet is the first of its kind: no connection of it is known.
type packet struct {
	iif      string
	src, dst netip.Addr
	proto    byte
	dport    uint16
}

// A verdict is what becomes of a packet.
type verdict int

const (
	goesOn  verdict = iota // no rule says anything
	accepts                // this chain does
	drops
)

// A fate is a verdict, and how sure it is.
type fate struct {
	verdict
	// chain says it; rule is the one that does, nil for the chain's policy.
	chain *nftables.Chain
	rule  *nftables.Rule
	// perhaps: a rule that we cannot judge might have said something else before.
	perhaps bool
}

// readRuleset reads the base chains that keep picks, and whatever else is in
// their tables.
func readRuleset(keep func(*nftables.Chain) bool) (*ruleset, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all, err := c.ListChains()
	if err != nil {
		return nil, err
	}
	s := &ruleset{rules: map[*nftables.Chain][]*nftables.Rule{}}
	inTable := func(ch *nftables.Chain) bool {
		return slices.ContainsFunc(all, func(b *nftables.Chain) bool {
			return b.Hooknum != nil && keep(b) && b.Table.Name == ch.Table.Name && b.Table.Family == ch.Table.Family
		})
	}
	for _, ch := range all {
		if !inTable(ch) {
			continue
		}
		s.chains = append(s.chains, ch)
		if s.rules[ch], err = c.GetRules(ch.Table, ch); err != nil {
			return nil, fmt.Errorf("rules of %s: %w", ch.Name, err)
		}
	}
	return s, nil
}

// dropped returns the fate of the packet at the first base chain that drops it;
// its verdict is accepts if none does.
func (s *ruleset) dropped(p packet, keep func(*nftables.Chain) bool) fate {
	for _, ch := range s.chains {
		if ch.Hooknum == nil || !keep(ch) || !concerns(ch.Table.Family, p) {
			continue
		}
		f := s.walk(ch, p, 0)
		if f.verdict == goesOn && ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
			f.verdict, f.chain = drops, ch
		}
		if f.verdict == drops {
			return f
		}
	}
	return fate{verdict: accepts}
}

func concerns(f nftables.TableFamily, p packet) bool {
	return f == nftables.TableFamilyINet || f == nftables.TableFamilyIPv4 && p.dst.Is4() || f == nftables.TableFamilyIPv6 && p.dst.Is6()
}

// walk goes through a chain and those that it leads to.
func (s *ruleset) walk(ch *nftables.Chain, p packet, depth int) fate {
	out := fate{chain: ch}
	if depth > 16 { // the kernel's own bound
		return out
	}
	for _, r := range s.rules[ch] {
		v, target, sure := judge(r, p)
		if v == goesOn && target == "" {
			continue
		}
		f := fate{verdict: v, chain: ch, rule: r}
		if target != "" {
			if to := s.find(ch.Table, target); to != nil {
				f = s.walk(to, p, depth+1)
			}
		}
		out.perhaps = out.perhaps || f.perhaps || !sure && f.verdict != goesOn
		if sure && f.verdict != goesOn {
			f.perhaps = out.perhaps
			return f
		}
	}
	return out
}

func (s *ruleset) find(t *nftables.Table, name string) *nftables.Chain {
	i := slices.IndexFunc(s.chains, func(c *nftables.Chain) bool {
		return c.Name == name && c.Table.Name == t.Name && c.Table.Family == t.Family
	})
	if i < 0 {
		return nil
	}
	return s.chains[i]
}

// judge says what a rule does with the packet: a verdict, or the chain it goes
// on in. sure is false where a condition is none that we know.
func judge(r *nftables.Rule, p packet) (v verdict, target string, sure bool) {
	sure = true
	regs := map[uint32][]byte{} // nil: not known
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Meta:
			regs[e.Register] = p.meta(e.Key)
		case *expr.Payload:
			regs[e.DestRegister] = p.payload(e)
		case *expr.Ct:
			regs[e.Register] = nil
			if e.Key == expr.CtKeySTATE {
				regs[e.Register] = binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW)
			}
		case *expr.Bitwise:
			regs[e.DestRegister] = masked(regs[e.SourceRegister], e)
		case *expr.Cmp:
			have := regs[e.Register]
			if have == nil || len(have) < len(e.Data) || e.Op != expr.CmpOpEq && e.Op != expr.CmpOpNeq {
				sure = false
			} else if bytes.Equal(have[:len(e.Data)], e.Data) != (e.Op == expr.CmpOpEq) {
				return goesOn, "", true
			}
		case *expr.Match:
			switch e.Name {
			case "comment":
			case "conntrack", "state":
				return goesOn, "", true // about connections that are known
			default:
				sure = false
			}
		case *expr.Reject:
			v = drops
		case *expr.Target: // of iptables; others, such as LOG, decide nothing
			if e.Name == "REJECT" {
				v = drops
			}
		case *expr.Verdict:
			switch e.Kind {
			case expr.VerdictAccept:
				v = accepts
			case expr.VerdictDrop:
				v = drops
			case expr.VerdictJump, expr.VerdictGoto:
				target = e.Chain
			}
		default:
			sure = false
		}
	}
	return v, target, sure
}

func masked(b []byte, e *expr.Bitwise) []byte {
	if len(b) != len(e.Mask) || len(b) != len(e.Xor) {
		return nil
	}
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i]&e.Mask[i] ^ e.Xor[i]
	}
	return out
}

func (p packet) meta(key expr.MetaKey) []byte {
	switch key {
	case expr.MetaKeyIIFNAME:
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, p.iif)
		return name
	case expr.MetaKeyL4PROTO:
		return []byte{p.proto}
	case expr.MetaKeyNFPROTO:
		if p.dst.Is6() {
			return []byte{unix.NFPROTO_IPV6}
		}
		return []byte{unix.NFPROTO_IPV4}
	}
	return nil
}

// payload is a part of the packet's headers, as far as we know them: addresses,
// protocol, destination port (RFC 791, RFC 8200, RFC 768).
func (p packet) payload(e *expr.Payload) []byte {
	known := map[int]byte{}
	put := func(at int, b []byte) {
		for i, c := range b {
			known[at+i] = c
		}
	}
	switch {
	case e.Base == expr.PayloadBaseTransportHeader && p.dport != 0:
		put(2, binary.BigEndian.AppendUint16(nil, p.dport))
	case e.Base == expr.PayloadBaseNetworkHeader && p.dst.Is4():
		put(9, []byte{p.proto})
		put(12, p.src.AsSlice())
		put(16, p.dst.AsSlice())
	case e.Base == expr.PayloadBaseNetworkHeader:
		put(6, []byte{p.proto})
		put(8, p.src.AsSlice())
		put(24, p.dst.AsSlice())
	}
	var b []byte
	for i := range int(e.Len) {
		c, ok := known[int(e.Offset)+i]
		if !ok {
			return nil
		}
		b = append(b, c)
	}
	return b
}
