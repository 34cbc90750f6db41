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
	// legacy: it is the old iptables'.
	legacy bool
}

// rules of a chain, in order. It is read when a packet may get there.
type ruleChain struct {
	chainID
	rules []rule
}

// A ruleset is the packet filter of this host as far as it was looked at.
type ruleset struct {
	r      *reader // nil: there is no nf_tables
	chains map[chainID]*ruleChain
	sets   map[chainID]*elementSet
}

func newRuleset(r *reader) *ruleset {
	return &ruleset{r, map[chainID]*ruleChain{}, map[chainID]*elementSet{}}
}

// chain returns a chain; one that is not there has no rules.
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

// A baseChain is a base chain, which every packet of its family passes at its hook:
// nf_tables', or the old iptables'. A packet has to be accepted at each.
type baseChain struct {
	chainID
	// drops: what no rule decides is dropped.
	drops bool
	// iptables: it is iptables' own chain, by name and priority.
	iptables bool
}

// sees reports whether packets of the family pass the gate.
func (g baseChain) sees(ipv6 bool) bool {
	return g.family == unix.NFPROTO_INET || ipv6 == (g.family == unix.NFPROTO_IPV6)
}

// A place is a rule of a chain; behind the last one it is the chain's policy.
type place struct {
	chain *ruleChain
	at    int
}

// A outcome is what becomes of a class of packets at a gate.
type outcome struct {
	gate baseChain
	// drops: they are dropped, but for those that the doubtful rules accept.
	drops bool
	// by drops them.
	by place
	// base is where in the gate's chain that happens.
	base int
	// narrow: the way to by asks for links or addresses.
	narrow bool
	// unsure: a rule in front of by that we cannot judge may accept them.
	unsure bool
	// partialDrops are rules in front of by that drop some of the packets, or perhaps.
	partialDrops []partialDrop
	// met are the owner's rules in front of by.
	met []*rule
}

// A partialDrop is a rule that drops some of the packets, or perhaps some.
type partialDrop struct {
	place
	base  int
	match answer
}

// A walker takes a class of packets through a gate.
type walker struct {
	*ruleset
	p     *Packet
	owner string
	fate  outcome
	sits  *judge
}

// outcomeAt takes the packets through a gate. Rules with the owner's comment are as
// if they were not there.
func (s *ruleset) outcomeAt(g baseChain, p *Packet, owner string) (outcome, error) {
	w := walker{s, p, owner, outcome{gate: g}, newJudge(p)}
	c, err := s.chain(g.chainID)
	if err != nil {
		return w.fate, err
	}
	v, err := w.walk(c, yes, false, 0)
	if v == goesOn && g.drops {
		w.fate.drops, w.fate.by, w.fate.base, w.fate.narrow = true, place{c, len(c.rules)}, len(c.rules), false
	}
	return w.fate, err
}

// walk goes through a chain and those that it leads to. sure says which of the
// packets come here: yes is all. What it returns is about those that do.
func (w *walker) walk(c *ruleChain, sure answer, narrow bool, depth int) (verdict, error) {
	if depth > 16 { // NFT_JUMP_STACK_SIZE
		return goesOn, nil
	}
	for i := range c.rules {
		r := &c.rules[i]
		if depth == 0 {
			w.fate.base = i
		}
		if w.owner != "" && r.mark == w.owner {
			if sure == yes {
				w.fate.met = append(w.fate.met, r)
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
	return w.sits.rule(r, func(name string) (*elementSet, error) { return w.set(chainID{c.family, c.table, name, false}) })
}

// follow does what a rule does with the packets that it matches.
func (w *walker) follow(at place, e effect, sure answer, narrow bool, depth int) (verdict, error) {
	match := min(sure, e.match)
	if match == no {
		return goesOn, nil
	}
	switch e.verdict {
	case accepts:
		w.fate.unsure = w.fate.unsure || match == perhaps
	case drops:
		if match == yes {
			w.fate.drops, w.fate.by, w.fate.narrow = true, at, narrow
		} else {
			w.fate.partialDrops = append(w.fate.partialDrops, partialDrop{at, w.fate.base, match})
		}
	case jumps, goesTo:
		c, err := w.chain(chainID{at.chain.family, at.chain.table, e.chain, at.chain.legacy})
		if err != nil {
			return goesOn, err
		}
		if e.chain == isolation {
			// It drops what comes from bridges that it keeps apart.
			w.fate.partialDrops = append(w.fate.partialDrops, partialDrop{at, w.fate.base, no})
		}
		v, err := w.walk(c, match, narrow, depth+1)
		if v == goesOn && e.verdict == goesTo {
			v = returns
		}
		return v, err
	}
	return e.verdict, nil
}

// String names the place for a message.
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

// baseChains reads the base chains of a hook: nf_tables', and the old iptables'
// where the kernel has its table in use.
func (s *ruleset) baseChains(hook uint32, keep func(chain) bool) ([]baseChain, error) {
	if s.r == nil {
		return nil, nil
	}
	const typ = "filter" // which only base chains have
	chains, err := s.r.chains(typ)
	if err != nil {
		return nil, err
	}
	var gates []baseChain
	for _, c := range chains {
		if c.hook != hook || c.typ != typ || familyName(c.family) == "" || !keep(c) {
			continue
		}
		const drop = 0 // NF_DROP
		gates = append(gates, baseChain{
			chainID: chainID{family: c.family, table: c.table, name: c.name}, drops: c.policy == drop,
			// iptables' own names and priorities; it has no family inet.
			iptables: c.family != inet && c.name == strings.ToUpper(c.name) &&
				(c.table == "filter" && c.priority == 0 || c.table == "raw" && c.priority == -300),
		})
	}
	return gates, nil
}
