package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// dockerUser is the chain that Docker makes for rules of others. It jumps there
// before its own rules, and never changes the rules in it.
const dockerUser = "DOCKER-USER"

// dockerTable is the table of Docker's nftables backend, one for each family. No rule
// of another table can accept the packets that it drops, and Docker makes it again
// at each start.
const dockerTable = "docker-bridges"

// isolation is the chain by which containernetworking's firewall plugin separates
// bridges (ingressPolicy same-bridge and isolated): it drops packets between bridges
// and returns the others.
const isolation = "CNI-ISOLATION-STAGE-1"

// comment is the comment of a network's rules, of ovs-gre or of route-sync.
func comment(network string, routes bool) string {
	if routes {
		return "ovs-gre:" + network + ":routes"
	}
	return "ovs-gre:" + network
}

// ipv6 reports whether a Forward is for IPv6.
func ipv6(f state.Forward) bool { return strings.Contains(f.From+f.To, ":") }

// fromPeers reports whether a Forward is for packets between containers of this host
// and those of peers.
func fromPeers(f state.Forward) bool { return f.From != "" && f.To != "" }

// packets are the classes of packets that a Forward accepts.
func packets(f state.Forward) ([]Packet, error) {
	p := Packet{In: f.In, Out: f.Out, IPv6: ipv6(f)}
	for list, into := range map[string]*[]netip.Prefix{f.From: &p.From, f.To: &p.To} {
		v4, v6, err := parseCIDRs(list)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Noun(), err)
		}
		*into = append(v4, v6...)
	}
	if !f.Answers {
		return []Packet{p}, nil
	}
	known, translated := p, p
	known.State, translated.State = Answer, Translated
	return []Packet{known, translated}, nil
}

// forms are the rules of a Forward, for a chain of iptables or of nft.
func forms(f state.Forward, p Packet, iptables bool) []form {
	states := []string{""}
	if f.Answers {
		if states = []string{stateAll}; !iptables {
			states = []string{stateKnown, stateDNAT}
		}
	}
	var list []form
	for _, s := range states {
		for _, to := range orAny(p.To) {
			for _, from := range orAny(p.From) {
				w := form{in: f.In, out: f.Out, from: from, to: to, state: s, verdict: "ACCEPT"}
				w.comment = comment(f.Network, f.Routes)
				list = append(list, w)
			}
		}
	}
	return list
}

func orAny(list []netip.Prefix) []netip.Prefix {
	if len(list) == 0 {
		return []netip.Prefix{{}}
	}
	return list
}

// missingForms are the forms for which there is no rule.
func missingForms(forms []form, rules []*rule) []form {
	have := map[form]bool{}
	for _, r := range rules {
		have[r.form()] = true
	}
	var list []form
	for _, f := range forms {
		if !have[f] {
			list = append(list, f)
		}
	}
	return list
}

// A remedyKind tells what Apply can do about a drop.
type remedyKind byte

const (
	mendable remedyKind = iota // rules of ours in front of it accept the packets
	left                       // an administrator's drop, which stays; no error
	foreign                    // our rules have no effect, and the network does not work: an error
)

// An obstacle is the outcome of a Forward's packets at one base chain that drops
// them.
type obstacle struct {
	f state.Forward
	outcome
	remedyKind
	// missing are the rules that accept the packets, to be inserted at at, in the
	// form of iptables or of nft. rules is the ruleset of the base chain.
	missing    []form
	at         place
	asIPTables bool
	rules      *ruleset
}

// obstacles are the drops of f's packets at a base chain, both those that lack our
// rules in front of them and those that our rules have no effect on.
func (s *ruleset) obstacles(g baseChain, f state.Forward) ([]*obstacle, error) {
	classes, err := packets(f)
	if err != nil || !g.sees(ipv6(f)) {
		return nil, err
	}
	var list []*obstacle
	for i := range classes {
		p := &classes[i]
		ft, err := s.outcomeAt(g, p, comment(f.Network, f.Routes))
		if err != nil {
			return nil, err
		}
		if !ft.drops {
			if len(ft.partialDrops) > 0 {
				list = append(list, &obstacle{f: f, outcome: ft, remedyKind: left})
			}
			continue
		}
		o := &obstacle{f: f, outcome: ft, rules: s}
		if o.remedyKind, o.at, err = s.remedy(ft); err != nil {
			return nil, err
		}
		if o.remedyKind == foreign && !fromPeers(f) {
			o.remedyKind = left // the network works without such packets
		}
		if o.remedyKind != mendable {
			list = append(list, o)
			continue
		}
		// Rules in iptables' form and in nft's form are both right.
		if len(missingForms(forms(f, *p, true), ft.ours)) > 0 && len(missingForms(forms(f, *p, false), ft.ours)) > 0 {
			if o.asIPTables, err = s.readable(g); err != nil {
				return nil, err
			}
			o.missing = missingForms(forms(f, *p, o.asIPTables), ft.ours)
			return append(list, o), nil
		}
	}
	return list, nil
}

// remedy tells what can be done about a drop, and where our rules must be.
func (s *ruleset) remedy(ft outcome) (remedyKind, place, error) {
	base, err := s.chain(ft.base.chainID)
	if err != nil {
		return left, place{}, err
	}
	user := -1
	if ft.base.iptables {
		user = slices.IndexFunc(base.rules[:ft.baseRule], func(r rule) bool {
			return r.jumpsTo(dockerUser) && r.form() == form{verdict: dockerUser, comment: r.mark}
		})
	}
	docker := user >= 0 && strings.HasPrefix(ft.by.chain.name, "DOCKER")
	switch {
	case ft.base.table == dockerTable:
		return foreign, place{}, nil
	case ft.narrow && !docker:
		return left, place{}, nil
	case user < 0:
		return mendable, ft.by, nil
	case slices.ContainsFunc(ft.partialDrops, func(d partialDrop) bool {
		return d.baseRule > user && !strings.HasPrefix(d.chain.name, "DOCKER")
	}):
		// A rule behind DOCKER-USER drops some packets; it must stay in front of ours.
		if docker {
			return mendable, place{base, ft.baseRule}, nil
		}
		return mendable, ft.by, nil
	}
	c, err := s.chain(chainID{ft.base.family, ft.base.table, dockerUser, ft.base.legacy})
	if err != nil {
		return left, place{}, err
	}
	return mendable, place{c, c.end()}, nil
}

// jumpsTo reports whether a rule jumps to a chain.
func (r *rule) jumpsTo(chain string) bool {
	if r.args != nil {
		return slices.Contains(r.args, chain)
	}
	if len(r.exprs) == 0 || r.exprs[len(r.exprs)-1].name != "immediate" {
		return false
	}
	data := r.exprs[len(r.exprs)-1].attributes().in(unix.NFTA_IMMEDIATE_DATA)
	return data.in(unix.NFTA_DATA_VERDICT).text(unix.NFTA_VERDICT_CHAIN) == chain
}

// end is the index of the first rule that decides about all packets; behind it no
// rule is reached.
func (c *ruleChain) end() int {
	for i := range c.rules {
		f := c.rules[i].form()
		all := f == form{verdict: f.verdict, comment: f.comment}
		if all && slices.Contains([]string{"RETURN", "ACCEPT", "DROP", "REJECT"}, f.verdict) {
			return i
		}
	}
	return len(c.rules)
}

// String is the obstacle in a sentence that follows the packets.
func (o obstacle) String() string { return o.by.String() + " drops it" }

// A droppedForward takes the place of a wanted Forward whose packets are dropped by a
// rule.
type droppedForward struct {
	f  state.Forward
	by string
}

func (d droppedForward) ID() state.ID   { return d.f.ID() }
func (d droppedForward) Noun() string   { return d.f.Noun() }
func (d droppedForward) String() string { return d.by }

// An unwantedRule is a rule of the network that belongs to no wanted Forward.
type unwantedRule struct{ mark, chain, rule string }

func (s unwantedRule) ID() state.ID {
	return state.ID{Kind: state.KindForward, Name: s.mark + " " + s.String()}
}
func (s unwantedRule) Noun() string   { return "accept rule " + s.mark }
func (s unwantedRule) String() string { return s.chain + ": " + s.rule }

// owned are the rules with the comment mark in the base chain's table: in all chains
// if all is set, otherwise in the chains that were read.
func (s *ruleset) owned(g baseChain, mark string, all bool) ([]*rule, error) {
	if all && !g.legacy {
		rules, err := s.r.rules(g.family, g.table, "")
		var list []*rule
		for i := range rules {
			if rules[i].mark == mark {
				list = append(list, &rules[i])
			}
		}
		return list, err
	}
	if g.iptables {
		if _, err := s.chain(chainID{g.family, g.table, dockerUser, g.legacy}); err != nil {
			return nil, err
		}
	}
	var list []*rule
	for id, c := range s.chains {
		if id.family != g.family || id.table != g.table || id.legacy != g.legacy {
			continue
		}
		for i := range c.rules {
			if c.rules[i].mark == mark {
				list = append(list, &c.rules[i])
			}
		}
	}
	return list, nil
}

// A survey has the drops of a network's Forwards, and its unwanted rules.
type survey struct {
	obstacles []*obstacle
	unwanted  []ownedRule
}

// An ownedRule is a rule of the network.
type ownedRule struct {
	base baseChain
	*rule
}

func (o ownedRule) object() unwantedRule {
	return unwantedRule{o.mark, chainID{o.base.family, o.base.table, o.chain, o.base.legacy}.String(), o.text()}
}

// survey makes a survey of base chains. It skips Forwards of other networks and of
// the other plugin.
func (b *Backend) survey(s *ruleset, bases []baseChain, want state.Set) (survey, error) {
	var out survey
	var forwards []state.Forward
	wanted := map[form]bool{}
	for _, o := range want.Sorted() {
		f, ok := o.(state.Forward)
		if !ok || f.Network != b.network || f.Routes != b.routes {
			continue
		}
		forwards = append(forwards, f)
		p, err := packets(f)
		if err != nil {
			return out, err
		}
		for _, w := range slices.Concat(forms(f, p[0], true), forms(f, p[0], false)) {
			wanted[w] = true
		}
	}
	for _, g := range bases {
		for _, f := range forwards {
			list, err := s.obstacles(g, f)
			if err != nil {
				return out, err
			}
			out.obstacles = append(out.obstacles, list...)
		}
	}
	for i, g := range bases {
		inTable := func(o baseChain) bool { return o.family == g.family && o.table == g.table && o.legacy == g.legacy }
		if slices.ContainsFunc(bases[:i], inTable) {
			continue
		}
		rules, err := s.owned(g, comment(b.network, b.routes), len(forwards) == 0)
		if err != nil {
			return out, err
		}
		for _, r := range rules {
			if !wanted[r.form()] {
				out.unwanted = append(out.unwanted, ownedRule{g, r})
			}
		}
	}
	return out, nil
}

// objects are those of Observe: wanted Forwards, or droppedForwards in their place,
// and unwantedRules.
func (b *Backend) objects(want state.Set, surveys ...survey) []state.Object {
	have := state.Set{}
	for _, o := range want {
		if f, ok := o.(state.Forward); ok && f.Network == b.network && f.Routes == b.routes {
			have.Put(f)
		}
	}
	for _, s := range surveys {
		for _, o := range s.obstacles {
			if o.remedyKind != left {
				have.Put(droppedForward{o.f, o.String()})
			}
		}
		for _, r := range s.unwanted {
			have.Put(r.object())
		}
	}
	return have.Sorted()
}

// explain adds a hint to EPERM about a table that can be read.
func (g baseChain) explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		const hint = "nobody but its owner may change the table (flags owner); with firewalld: firewall-cmd --zone=trusted --add-interface=<link>"
		return fmt.Errorf("%w: %s", err, hint)
	}
	return err
}

func (id chainID) native() (*nftables.Table, *nftables.Chain) {
	t := &nftables.Table{Family: nftables.TableFamily(id.family), Name: id.table}
	return t, &nftables.Chain{Name: id.name, Table: t}
}
