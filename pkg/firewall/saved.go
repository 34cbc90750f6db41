package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// load parses the output of iptables-legacy -S for a table. It adds the chains to the
// ruleset and returns the base chain of the name base.
func (s *ruleset) load(family byte, table, base, out string) baseChain {
	g := baseChain{chainID: chainID{family, table, base, true}, iptables: true}
	chain := func(name string) *ruleChain {
		c, _ := s.chain(chainID{family, table, name, true}) // nothing is read
		return c
	}
	chain(base)
	for line := range strings.Lines(out) {
		args := words(line)
		if len(args) < 2 {
			continue
		}
		switch c := chain(args[1]); args[0] {
		case "-P":
			g.drops = g.drops || args[1] == base && len(args) > 2 && args[2] == "DROP"
		case "-A":
			r := rule{chain: args[1], args: args[2:]}
			r.mark = r.comment()
			c.rules = append(c.rules, r)
		}
	}
	return g
}

// words splits a line as a shell would; iptables quotes with double quotes and
// backslashes alone.
func words(line string) []string {
	var list []string
	var w strings.Builder
	var quoted, in bool
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line):
			i++
			w.WriteByte(line[i])
			in = true
		case c == '"':
			quoted, in = !quoted, true
		case !quoted && (c == ' ' || c == '\n'):
			if in {
				list = append(list, w.String())
			}
			w.Reset()
			in = false
		default:
			w.WriteByte(c)
			in = true
		}
	}
	if in {
		list = append(list, w.String())
	}
	return list
}

// An option is a condition or target in a line of iptables -S, such as "! -i eth0".
type option struct {
	not         bool
	name, value string
}

// options are those of a rule up to its target; the target's own options follow it and
// are left out.
func options(args []string) []option {
	var list []option
	for i := 0; i < len(args); i++ {
		o := option{}
		if args[i] == "!" && i+1 < len(args) {
			o.not = true
			i++
		}
		o.name = args[i]
		if i+1 < len(args) && (o.name == "--comment" || args[i+1] != "!" && !strings.HasPrefix(args[i+1], "-")) {
			i++
			o.value = args[i]
		}
		if list = append(list, o); o.name == "-j" || o.name == "-g" {
			break
		}
	}
	return list
}

// judgeSaved evaluates a rule of iptables-legacy for a class of packets.
func judgeSaved(args []string, p *Packet, isChain func(string) bool) judgement {
	out := judgement{}
	e := effect{match: yes}
	for _, o := range options(args) {
		if o.name == "-j" || o.name == "-g" {
			e = target(o, e.match, isChain)
			continue
		}
		a := o.judge(p)
		if o.not && a != perhaps {
			a = o.inverse(a, p)
		}
		e.match = min(e.match, a)
		out.narrow = out.narrow || slices.Contains([]string{"-i", "-o", "-s", "-d"}, o.name)
	}
	out.effects = []effect{e}
	return out
}

func target(o option, match answer, isChain func(string) bool) effect {
	e := effect{match: match}
	switch {
	case o.value == "ACCEPT":
		e.verdict = accepts
	case o.value == "DROP", o.value == "REJECT":
		e.verdict = drops
	case o.value == "RETURN":
		e.verdict = returns
	case isChain(o.value):
		e.verdict, e.chain = jumps, o.value
		if o.name == "-g" {
			e.verdict = goesTo
		}
	case !slices.Contains(onward, o.value):
		e.verdict, e.match = drops, min(match, perhaps)
	}
	return e
}

func (o option) inverse(a answer, p *Packet) answer {
	if o.name == "-i" && p.In == "" || o.name == "-o" && p.Out == "" {
		return yes
	}
	return a.not()
}

// judge answers whether the option holds, without regard to its "!".
func (o option) judge(p *Packet) answer {
	src, dst := p.ports()
	switch o.name {
	case "-i":
		return o.link(p.In)
	case "-o":
		return o.link(p.Out)
	case "-s":
		return o.address(p.addrs(p.From))
	case "-d":
		return o.address(p.addrs(p.To))
	case "-p":
		return o.protocol(p)
	case "--dport":
		return o.port(dst)
	case "--sport":
		return o.port(src)
	case "--comment":
		return yes
	case "-m":
		if slices.Contains([]string{"comment", "conntrack", "state", "tcp", "udp"}, o.value) {
			return yes
		}
	case "--ctstate", "--state":
		state, _ := p.State.bits()
		names := map[State][]string{New: {"NEW"}, Answer: {"ESTABLISHED"}, Translated: {"NEW", "DNAT"}}[p.State]
		if state != 0 && slices.ContainsFunc(strings.Split(o.value, ","), func(s string) bool { return slices.Contains(names, s) }) {
			return yes
		}
		return no
	}
	return perhaps
}

func (o option) link(have string) answer {
	name, wild := strings.CutSuffix(o.value, "+")
	want := append([]byte(name), 0)
	if wild {
		want = want[:len(name)]
	}
	return value{fields: []field{link(have)}}.equals(want)
}

func (o option) address(have field) answer {
	c, err := netip.ParsePrefix(o.value)
	if err != nil {
		return perhaps // a mask that is not that of a prefix
	}
	return have.in([]span{{c.Masked().Addr().AsSlice(), last(c.Masked()).AsSlice()}})
}

// protocols are the names of protocols in iptables -S; 0 is all.
var protocols = map[string]byte{
	"icmp": unix.IPPROTO_ICMP, "tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "gre": unix.IPPROTO_GRE,
	"ipv6-icmp": unix.IPPROTO_ICMPV6, "sctp": unix.IPPROTO_SCTP, "all": 0,
}

func (o option) protocol(p *Packet) answer {
	n, known := protocols[o.value]
	if i, err := strconv.ParseUint(o.value, 10, 8); err == nil {
		n, known = byte(i), true
	}
	switch {
	case !known && p.Proto != 0:
		return perhaps
	case !known:
		return part
	case n == 0:
		return yes
	}
	return p.proto().in(exactly(n))
}

func (o option) port(have field) answer {
	first, end, isRange := strings.Cut(o.value, ":")
	if !isRange {
		end = first
	}
	lo, err := strconv.ParseUint(first, 10, 16)
	hi, err2 := strconv.ParseUint(end, 10, 16)
	if err != nil || err2 != nil {
		return perhaps
	}
	return have.in([]span{{binary.BigEndian.AppendUint16(nil, uint16(lo)), binary.BigEndian.AppendUint16(nil, uint16(hi))}})
}

// savedForm makes a form from the arguments of a rule. A link such as obr+, which stands
// for all names that begin so, is never equal to a link of ours.
func savedForm(args []string) form {
	var f form
	list := options(args)
	for _, o := range list {
		f.more = f.more || o.not
		switch o.name {
		case "-i":
			f.in = o.value
		case "-o":
			f.out = o.value
		case "-s":
			f.from, _ = netip.ParsePrefix(o.value)
		case "-d":
			f.to, _ = netip.ParsePrefix(o.value)
		case "--ctstate":
			f.state = o.value
		case "--comment":
			f.comment = o.value
		case "-j":
			f.verdict = o.value
		case "-m":
			f.more = f.more || o.value != "comment" && o.value != "conntrack"
		default:
			f.more = true
		}
	}
	return f
}
