package firewall

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// A chainID names a chain of this host.
type chainID struct {
	family      byte
	table, name string
	// legacy: it is a chain of iptables-legacy.
	legacy bool
}

// A ruleChain has the rules of a chain, in order. It is read when packets may reach it.
type ruleChain struct {
	chainID
	rules []rule
}

// A ruleset has the chains and sets of this host that were read.
type ruleset struct {
	r      *reader // nil: there is no nf_tables
	chains map[chainID]*ruleChain
	sets   map[chainID]*elementSet
}

func newRuleset(r *reader) *ruleset {
	return &ruleset{r, map[chainID]*ruleChain{}, map[chainID]*elementSet{}}
}

// chain returns a chain; one that does not exist has no rules.
func (s *ruleset) chain(id chainID) (*ruleChain, error) {
	if c := s.chains[id]; c != nil {
		return c, nil
	}
	c := &ruleChain{chainID: id}
	if !id.legacy && s.r != nil {
		var err error
		if c.rules, err = s.r.rules(id.family, id.table, id.name); err != nil {
			return nil, err
		}
	}
	s.chains[id] = c
	return c, nil
}

func (s *ruleset) set(id chainID) (*elementSet, error) {
	if e := s.sets[id]; e != nil {
		return e, nil
	}
	e, err := s.r.elementSet(id.family, id.table, id.name)
	if err == nil {
		s.sets[id] = e
	}
	return e, err
}

// A baseChain is a base chain of nf_tables or iptables-legacy: all packets of its family
// pass it at its hook. A packet must be accepted by each.
type baseChain struct {
	chainID
	// drops: the policy is drop.
	drops bool
	// iptables: it is a chain that iptables makes, by name and priority.
	iptables bool
}

// sees reports whether packets of the family pass the chain.
func (g baseChain) sees(ipv6 bool) bool {
	return g.family == unix.NFPROTO_INET || ipv6 == (g.family == unix.NFPROTO_IPV6)
}

// A place is a rule of a chain by its index; behind the last one it is the chain's policy.
type place struct {
	chain *ruleChain
	at    int
}

// An outcome tells what happens to a class of packets at a base chain.
type outcome struct {
	base baseChain
	// drops: the packets are dropped, unless a rule that unsure is about accepts them.
	drops bool
	// by is the rule that drops them.
	by place
	// baseRule is the index of the base chain's rule that is, or leads to, by.
	baseRule int
	// narrow: rules on the way to by have conditions on links or addresses.
	narrow bool
	// unsure: a rule in front of by, with unknown conditions, may accept packets.
	unsure bool
	// partialDrops are rules in front of by that drop some packets, or may do so.
	partialDrops []partialDrop
	// ours are the owner's rules in front of by.
	ours []*rule
}

// A partialDrop is a rule that drops some of the packets, or may do so.
type partialDrop struct {
	place
	baseRule int
	match    answer
}

// A walker takes a class of packets through a base chain.
type walker struct {
	*ruleset
	p     *Packet
	owner string
	out   outcome
	eval  *judge
}

// outcomeAt takes the packets through a base chain. It skips rules with the owner's
// comment.
func (s *ruleset) outcomeAt(g baseChain, p *Packet, owner string) (outcome, error) {
	w := walker{s, p, owner, outcome{base: g}, newJudge(p)}
	c, err := s.chain(g.chainID)
	if err != nil {
		return w.out, err
	}
	v, err := w.walk(c, yes, false, 0)
	if v == goesOn && g.drops {
		w.out.drops, w.out.by, w.out.baseRule, w.out.narrow = true, place{c, len(c.rules)}, len(c.rules), false
	}
	return w.out, err
}

// walk takes the packets through a chain and the chains that it jumps to. sure tells
// which of the packets reach it. The verdict is about those.
func (w *walker) walk(c *ruleChain, sure answer, narrow bool, depth int) (verdict, error) {
	if depth > 16 { // NFT_JUMP_STACK_SIZE
		return goesOn, nil
	}
	for i := range c.rules {
		r := &c.rules[i]
		if depth == 0 {
			w.out.baseRule = i
		}
		if w.owner != "" && r.mark == w.owner {
			if sure == yes {
				w.out.ours = append(w.out.ours, r)
			}
			continue
		}
		j, err := w.judge(c, r)
		if err != nil {
			return goesOn, err
		}
		for _, e := range j.effects {
			v, err := w.follow(place{c, i}, e, sure, narrow || j.narrow, depth)
			if err != nil {
				return goesOn, err
			}
			if e.match == yes && v == returns {
				return goesOn, nil
			}
			if e.match == yes && v != goesOn {
				return v, nil
			}
		}
	}
	return goesOn, nil
}

func (w *walker) judge(c *ruleChain, r *rule) (judgement, error) {
	if r.args != nil {
		isChain := func(name string) bool { return w.chains[chainID{c.family, c.table, name, true}] != nil }
		return judgeSaved(r.args, w.p, isChain), nil
	}
	return w.eval.rule(r, func(name string) (*elementSet, error) { return w.set(chainID{c.family, c.table, name, false}) })
}

// follow applies an effect of the rule at at.
func (w *walker) follow(at place, e effect, sure answer, narrow bool, depth int) (verdict, error) {
	match := min(sure, e.match)
	if match == no {
		return goesOn, nil
	}
	switch e.verdict {
	case accepts:
		w.out.unsure = w.out.unsure || match == perhaps
	case drops:
		if match == yes {
			w.out.drops, w.out.by, w.out.narrow = true, at, narrow
		} else {
			w.out.partialDrops = append(w.out.partialDrops, partialDrop{at, w.out.baseRule, match})
		}
	case jumps, goesTo:
		c, err := w.chain(chainID{at.chain.family, at.chain.table, e.chain, at.chain.legacy})
		if err != nil {
			return goesOn, err
		}
		if e.chain == isolation {
			// It drops packets between bridges.
			w.out.partialDrops = append(w.out.partialDrops, partialDrop{at, w.out.baseRule, no})
		}
		v, err := w.walk(c, match, narrow, depth+1)
		if v == goesOn && e.verdict == goesTo {
			v = returns
		}
		return v, err
	}
	return e.verdict, nil
}

// String describes the rule for a message.
func (p place) String() string {
	if p.at >= len(p.chain.rules) {
		return "the policy DROP of " + p.chain.String()
	}
	return fmt.Sprintf("rule %d of %s (%s)", p.at+1, p.chain, p.chain.rules[p.at].text())
}

// String names the chain: "chain FORWARD of table ip filter".
func (id chainID) String() string {
	s := fmt.Sprintf("chain %s of table %s %s", id.name, familyName(id.family), id.table)
	if id.legacy {
		s += " (iptables-legacy)"
	}
	return s
}

func familyName(family byte) string {
	return map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}[family]
}

// baseChains reads the base chains of nf_tables at a hook that keep accepts.
func (s *ruleset) baseChains(hook uint32, keep func(chain) bool) ([]baseChain, error) {
	if s.r == nil {
		return nil, nil
	}
	const typ = "filter" // which only base chains have
	chains, err := s.r.chains(typ)
	if err != nil {
		return nil, err
	}
	var bases []baseChain
	for _, c := range chains {
		if c.hook != hook || c.typ != typ || familyName(c.family) == "" || !keep(c) {
			continue
		}
		const drop = 0 // NF_DROP
		bases = append(bases, baseChain{
			chainID: chainID{family: c.family, table: c.table, name: c.name}, drops: c.policy == drop,
			// iptables' own names and priorities; it has no family inet.
			iptables: c.family != inet && c.name == strings.ToUpper(c.name) &&
				(c.table == "filter" && c.priority == 0 || c.table == "raw" && c.priority == -300),
		})
	}
	return bases, nil
}
