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

// dockerUser is the chain that Docker makes for other people's rules, never
// touches, and jumps to before it looks at a packet itself.
const dockerUser = "DOCKER-USER"

// dockerTable is the table of Docker's nftables backend, one a family: what
// drops in there no rule of another table can accept, and Docker makes it anew
// with each start.
const dockerTable = "docker-bridges"

// isolation is the chain with which containernetworking's firewall keeps
// bridges apart (ingressPolicy same-bridge and isolated): it drops, and returns
// what it does not drop.
const isolation = "CNI-ISOLATION-STAGE-1"

// comment marks the rules of a network: ovs-gre's, or route-sync's.
func comment(network string, routes bool) string {
	if routes {
		return "ovs-gre:" + network + ":routes"
	}
	return "ovs-gre:" + network
}

// ipv6 reports of which family the packets of a Forward are.
func ipv6(f state.Forward) bool { return strings.Contains(f.From+f.To, ":") }

// fromPeers reports whether a Forward is of what passes between containers here
// and those of peers.
func fromPeers(f state.Forward) bool { return f.From != "" && f.To != "" }

// packets are the classes that a Forward is about.
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

// forms are the rules that a Forward stands for, in a chain of iptables or in
// one of nft.
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

// missingForms are those of forms that are not among the rules.
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

// A remedyKind is what can be done about a drop.
type remedyKind byte

const (
	mendable remedyKind = iota // by rules of ours
	left                       // somebody's own, which stays
	foreign                    // by nobody but who made it, and the network does not work
)

// An obstacle is what drops packets of a Forward at one gate.
type obstacle struct {
	f state.Forward
	outcome
	remedyKind
	// missing are the rules that would accept them, to be put at, in the form of
	// iptables or of nft. rules is the ruleset that the gate is in.
	missing    []form
	at         place
	asIPTables bool
	rules      *ruleset
}

// obstacles are what drops packets of f at the gate, for want of rules of ours
// in front of it or in spite of them.
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
			o.remedyKind = left // the network works without
		}
		if o.remedyKind != mendable {
			list = append(list, o)
			continue
		}
		// A rule that iptables and one that nft would make are as good.
		if len(missingForms(forms(f, *p, true), ft.met)) > 0 && len(missingForms(forms(f, *p, false), ft.met)) > 0 {
			if o.asIPTables, err = s.readable(g); err != nil {
				return nil, err
			}
			o.missing = missingForms(forms(f, *p, o.asIPTables), ft.met)
			return append(list, o), nil
		}
	}
	return list, nil
}

// remedy says what can be done about a drop, and where rules of ours have to be.
func (s *ruleset) remedy(ft outcome) (remedyKind, place, error) {
	base, err := s.chain(ft.gate.chainID)
	if err != nil {
		return left, place{}, err
	}
	user := -1
	if ft.gate.iptables {
		user = slices.IndexFunc(base.rules[:ft.base], func(r rule) bool {
			return r.jumpsTo(dockerUser) && r.form() == form{verdict: dockerUser, comment: r.mark}
		})
	}
	docker := user >= 0 && strings.HasPrefix(ft.by.chain.name, "DOCKER")
	switch {
	case ft.gate.table == dockerTable:
		return foreign, place{}, nil
	case ft.narrow && !docker:
		return left, place{}, nil
	case user < 0:
		return mendable, ft.by, nil
	case slices.ContainsFunc(ft.partialDrops, func(d partialDrop) bool {
		return d.base > user && !strings.HasPrefix(d.chain.name, "DOCKER")
	}):
		// Something behind DOCKER-USER drops what it should go on dropping.
		if docker {
			return mendable, place{base, ft.base}, nil
		}
		return mendable, ft.by, nil
	}
	c, err := s.chain(chainID{ft.gate.family, ft.gate.table, dockerUser, ft.gate.legacy})
	if err != nil {
		return left, place{}, err
	}
	return mendable, place{c, c.end()}, nil
}

// jumpsTo reports whether a rule's verdict is about a chain.
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

// end is where the rules of a chain end that a packet may get by: in front of
// the first that takes all.
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

// A droppedForward is a Forward that is wanted and whose packets are dropped. It
// stands where the Forward would, and differs from it.
type droppedForward struct {
	f  state.Forward
	by string
}

func (d droppedForward) ID() state.ID   { return d.f.ID() }
func (d droppedForward) Noun() string   { return d.f.Noun() }
func (d droppedForward) String() string { return d.by }

// A unwantedRule is a rule of the network that no Forward which is wanted stands for.
type unwantedRule struct{ mark, chain, rule string }

func (s unwantedRule) ID() state.ID {
	return state.ID{Kind: state.KindForward, Name: s.mark + " " + s.String()}
}
func (s unwantedRule) Noun() string   { return "accept rule " + s.mark }
func (s unwantedRule) String() string { return s.chain + ": " + s.rule }

// owned are the rules with the comment in the gate's table, as far as they can
// be ours: all where all is set, otherwise those of chains that were looked at.
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

// A survey is what the packet filter has to say to the Forwards of a network.
type survey struct {
	obstacles []*obstacle
	// unwanted are rules of the network's that are not wanted.
	unwanted []ownedRule
}

// An ownedRule is a rule of the network's.
type ownedRule struct {
	gate baseChain
	*rule
}

func (o ownedRule) object() unwantedRule {
	return unwantedRule{o.mark, chainID{o.gate.family, o.gate.table, o.chain, o.gate.legacy}.String(), o.text()}
}

// survey looks at the gates. What of want is of another network, or of the
// other plugin, is none of the backend's.
func (b *Backend) survey(s *ruleset, gates []baseChain, want state.Set) (survey, error) {
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
	for _, g := range gates {
		for _, f := range forwards {
			list, err := s.obstacles(g, f)
			if err != nil {
				return out, err
			}
			out.obstacles = append(out.obstacles, list...)
		}
	}
	for i, g := range gates {
		inTable := func(o baseChain) bool { return o.family == g.family && o.table == g.table && o.legacy == g.legacy }
		if slices.ContainsFunc(gates[:i], inTable) {
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

// objects are what Observe says: the Forwards of want, or what drops their
// packets, and rules that are not wanted.
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

// explain says what a refusal means after the table could be read.
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
