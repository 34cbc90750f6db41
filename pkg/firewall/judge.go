package firewall

import (
	"net"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A verdict is that of a rule or a chain about a packet.
type verdict byte

const (
	goesOn verdict = iota
	accepts
	drops
	returns
	jumps
	goesTo
)

// An effect is the verdict of a rule about the packets that it matches. A rule with a
// verdict map has several.
type effect struct {
	match answer
	verdict
	// chain is the chain that the rule jumps or goes to.
	chain string
}

// A judgement has the effects of a rule on a class of packets.
type judgement struct {
	effects []effect
	// narrow: the rule has conditions on links or addresses.
	narrow bool
}

// A judge evaluates the expressions of one rule for a class of packets.
type judge struct {
	p      *Packet
	lookup func(set string) (*elementSet, error)
	match  answer
	narrow bool
	// slots are the registers of 4 bytes each; a value is kept in its first one.
	// Those from used on were not set.
	slots [20]value
	used  int
	out   effect
	maps  []effect
	err   error
	// network and transport are the known fields of the packets' headers.
	network, transport []placed
	in, outLink        field
}

func newJudge(p *Packet) *judge {
	return &judge{p: p, network: p.network(), transport: p.transport(), in: link(p.In), outLink: link(p.Out)}
}

// A value is the content of a register.
type value struct {
	fields []field
	// where: it is from a link's name or an address.
	where bool
}

func (v value) size() (n int) {
	for _, f := range v.fields {
		n += f.size
	}
	return n
}

// slot turns a register's number into its first slot: 1 to 4 have 16 bytes,
// those from 8 on 4 (enum nft_registers).
func slot(register uint32) int {
	switch {
	case register >= 1 && register <= 4:
		return int(register-1) * 4
	case register >= 8 && register < 24:
		return int(register - 8)
	}
	return -1
}

func (j *judge) set(register uint32, v value) {
	if s := slot(register); s >= 0 && s < len(j.slots) {
		j.slots[s], j.used = v, max(j.used, s+1)
	}
}

// get is a register's value; it is unknown if the register was not set.
func (j *judge) get(register uint32) value {
	if s := slot(register); s >= 0 && s < len(j.slots) {
		return j.slots[s]
	}
	return value{}
}

func (j *judge) and(a answer) { j.match = min(j.match, a) }

// rule evaluates a rule of nf_tables.
func (j *judge) rule(r *rule, lookup func(string) (*elementSet, error)) (judgement, error) {
	clear(j.slots[:j.used])
	j.lookup, j.match, j.narrow, j.used, j.out, j.maps, j.err = lookup, yes, false, 0, effect{}, nil, nil
	for i := range r.exprs {
		j.step(&r.exprs[i])
		if j.match == no || j.err != nil {
			return judgement{}, j.err
		}
	}
	j.out.match = j.match
	if j.maps == nil {
		return judgement{narrow: j.narrow, effects: []effect{j.out}}, nil
	}
	for i := range j.maps {
		j.maps[i].match = min(j.maps[i].match, j.match)
	}
	return judgement{narrow: j.narrow, effects: j.maps}, nil
}

func (j *judge) step(e *expression) {
	switch e.name {
	case "counter", "log", "notrack", "last", "masq", "nat", "redir", "dup", "flow_offload":
		return
	}
	switch data := e.attributes(); e.name {
	case "meta":
		j.meta(data)
	case "ct":
		j.ct(data)
	case "payload":
		j.payload(data)
	case "bitwise":
		j.bitwise(data)
	case "cmp":
		j.cmp(data)
	case "range":
		j.between(data)
	case "lookup":
		j.look(data)
	case "immediate":
		j.immediate(data)
	case "match":
		j.xtMatch(data)
	case "target":
		j.xtTarget(data.text(unix.NFTA_TARGET_NAME))
	case "reject":
		j.out.verdict = drops
	case "objref":
		// Quotas, limits and connlimits may end the rule (enum nft_object types).
		if typ := data.number(unix.NFTA_OBJREF_IMM_TYPE); typ == 2 || typ >= 4 && typ <= 5 {
			j.and(perhaps)
		}
	case "queue", "synproxy", "tproxy":
		j.and(perhaps)
		j.out.verdict = drops
	case "dynset":
		const exprs = 7 // NFTA_DYNSET_EXPR; a limit is one
		if data.get(exprs) != nil {
			j.and(perhaps)
		}
	case "fib", "rt", "socket", "osf", "exthdr", "numgen", "hash", "tunnel", "xfrm", "byteorder", "inner":
		// They load an unknown value into a register, or are a condition themselves.
		j.forget(e)
	default: // limit, quota, connlimit and expressions of later kernels
		j.and(perhaps)
	}
}

// forget marks all registers as unknown: which one the expression writes to is in an
// attribute that differs by expression.
func (j *judge) forget(e *expression) {
	j.slots = [20]value{}
	if e.name == "exthdr" || e.name == "rt" || e.name == "socket" || e.name == "fib" {
		j.and(perhaps) // the rule ends here for packets without it
	}
}

func (j *judge) meta(data attributes) {
	dst := data.get(unix.NFTA_META_DREG)
	if dst == nil {
		return // the expression sets a field, it does not load one
	}
	v := value{fields: []field{{size: 4}}}
	switch data.number(unix.NFTA_META_KEY) {
	case unix.NFT_META_IIFNAME:
		v = value{[]field{j.in}, true}
	case unix.NFT_META_OIFNAME:
		v = value{[]field{j.outLink}, true}
	case unix.NFT_META_IIF:
		v = value{[]field{index(j.p.In)}, true}
	case unix.NFT_META_OIF:
		v = value{[]field{index(j.p.Out)}, true}
	case unix.NFT_META_L4PROTO:
		v.fields = []field{j.p.proto()}
	case unix.NFT_META_NFPROTO:
		family := byte(unix.NFPROTO_IPV4)
		if j.p.IPv6 {
			family = unix.NFPROTO_IPV6
		}
		v.fields = []field{{size: 1, spans: exactly(family)}}
	case unix.NFT_META_PROTOCOL:
		etherType := []byte{0x08, 0x00}
		if j.p.IPv6 {
			etherType = []byte{0x86, 0xdd}
		}
		v.fields = []field{{size: 2, spans: exactly(etherType...)}}
	}
	j.set(be32(dst), v)
}

// index is a link's index; that of a link that does not exist is one that no rule
// has.
func index(name string) field {
	if name != "" {
		if l, err := net.InterfaceByName(name); err == nil {
			return number(uint32(l.Index))
		}
	}
	return field{size: 4, other: true}
}

func (j *judge) ct(data attributes) {
	dst := data.get(unix.NFTA_CT_DREG)
	if dst == nil {
		return
	}
	state, status := j.p.State.bits()
	f := field{size: 4}
	switch data.number(unix.NFTA_CT_KEY) {
	case unix.NFT_CT_STATE:
		f = number(state)
	case unix.NFT_CT_STATUS:
		f = number(status)
	}
	j.set(be32(dst), value{fields: []field{f}})
}

func (j *judge) payload(data attributes) {
	dst := data.get(unix.NFTA_PAYLOAD_DREG)
	if dst == nil {
		return
	}
	offset, size := int(data.number(unix.NFTA_PAYLOAD_OFFSET)), int(data.number(unix.NFTA_PAYLOAD_LEN))
	v := value{fields: []field{{size: size}}}
	switch base := data.number(unix.NFTA_PAYLOAD_BASE); base {
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		v.fields, v.where = loaded(j.network, offset, size), offset >= 12 || j.p.IPv6 && offset >= 8
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		v.fields = loaded(j.transport, offset, size)
	}
	j.set(be32(dst), v)
}

func (j *judge) bitwise(data attributes) {
	v := j.get(data.number(unix.NFTA_BITWISE_SREG))
	mask := data.in(unix.NFTA_BITWISE_MASK).get(unix.NFTA_DATA_VALUE)
	xor := data.in(unix.NFTA_BITWISE_XOR).get(unix.NFTA_DATA_VALUE)
	out := value{fields: []field{{size: int(data.number(unix.NFTA_BITWISE_LEN))}}, where: v.where}
	if n := v.size(); n > 0 && n == len(mask) && n == len(xor) { // other operations have no mask
		out.fields = nil
		for _, f := range v.fields {
			out.fields = append(out.fields, f.masked(mask[:f.size], xor[:f.size]))
			mask, xor = mask[f.size:], xor[f.size:]
		}
	}
	j.set(data.number(unix.NFTA_BITWISE_DREG), out)
}

// equals answers whether a value begins with the bytes. A link's name without its
// final zero thus stands for all names that begin so.
func (v value) equals(data []byte) answer {
	out := yes
	for _, f := range v.fields {
		if len(data) == 0 {
			return out
		}
		n := min(f.size, len(data))
		out = min(out, f.cut(0, n).in([]span{{data[:n], data[:n]}}))
		data = data[n:]
	}
	if len(data) > 0 {
		return min(out, perhaps)
	}
	return out
}

func (j *judge) cmp(data attributes) {
	v := j.get(data.number(unix.NFTA_CMP_SREG))
	want := data.in(unix.NFTA_CMP_DATA).get(unix.NFTA_DATA_VALUE)
	j.narrow = j.narrow || v.where
	op := data.number(unix.NFTA_CMP_OP)
	if op == unix.NFT_CMP_EQ || op == unix.NFT_CMP_NEQ {
		j.equal(v, want, op == unix.NFT_CMP_NEQ)
		return
	}
	if len(v.fields) != 1 || v.size() != len(want) {
		j.and(perhaps)
		return
	}
	f, all := v.fields[0], anything(len(want))
	switch op {
	case unix.NFT_CMP_LTE:
		j.and(f.in([]span{{all.lo, want}}))
	case unix.NFT_CMP_GTE:
		j.and(f.in([]span{{want, all.hi}}))
	case unix.NFT_CMP_LT:
		j.and(f.in([]span{{want, all.hi}}).not())
	case unix.NFT_CMP_GT:
		j.and(f.in([]span{{all.lo, want}}).not())
	}
}

func (j *judge) equal(v value, want []byte, inverted bool) {
	a := v.equals(want)
	if inverted {
		a = v.inverse(a)
	}
	j.and(a)
}

// inverse is the answer to the inverted condition. A link that no rule names meets
// every inverted one.
func (v value) inverse(a answer) answer {
	if len(v.fields) == 1 && v.fields[0].other {
		return yes
	}
	return a.not()
}

func (j *judge) between(data attributes) {
	v := j.get(data.number(unix.NFTA_RANGE_SREG))
	from := data.in(unix.NFTA_RANGE_FROM_DATA).get(unix.NFTA_DATA_VALUE)
	to := data.in(unix.NFTA_RANGE_TO_DATA).get(unix.NFTA_DATA_VALUE)
	j.narrow = j.narrow || v.where
	a := perhaps
	if len(v.fields) == 1 && v.size() == len(from) && len(from) == len(to) {
		a = v.fields[0].in([]span{{from, to}})
	}
	if data.number(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ {
		a = v.inverse(a)
	}
	j.and(a)
}

// key is the value of size bytes that is looked up in a set: those of consecutive
// registers. ok is false where their sizes do not fit.
func (j *judge) key(register uint32, size int) (v value, ok bool) {
	for s := slot(register); s >= 0 && s < len(j.slots) && size > 0; {
		part := j.slots[s]
		n := part.size()
		if n == 0 || n > size {
			return v, false
		}
		v.fields, v.where = append(v.fields, part.fields...), v.where || part.where
		padded := (n + 3) &^ 3
		if pad := min(padded, size) - n; pad > 0 {
			v.fields = append(v.fields, field{size: pad, spans: exactly(make([]byte, pad)...)})
		}
		size -= min(padded, size)
		s += padded / 4
	}
	return v, size == 0 && len(v.fields) > 0
}

func (j *judge) look(data attributes) {
	const dreg, flags = 3, 5 // NFTA_LOOKUP_DREG, NFTA_LOOKUP_FLAGS
	set, err := j.lookup(data.text(unix.NFTA_LOOKUP_SET))
	if err != nil {
		j.err = err
		return
	}
	register := data.number(unix.NFTA_LOOKUP_SREG)
	v, ok := j.key(register, set.keyLen)
	j.narrow = j.narrow || v.where || j.get(register).where
	into := data.get(dreg)
	switch {
	case into != nil && be32(into) == unix.NFT_REG_VERDICT:
		j.verdictMap(set, v, ok)
	case !ok:
		j.and(perhaps)
	case data.number(flags) != 0:
		a := set.holds(v)
		if !set.large {
			a = v.inverse(a)
		}
		j.and(a)
	default:
		j.and(set.holds(v))
	}
	if into != nil {
		j.set(be32(into), value{fields: []field{{size: 4}}})
	}
}

// verdictMap makes an effect of each verdict that a map may have for the packets.
func (j *judge) verdictMap(set *elementSet, v value, ok bool) {
	j.maps = []effect{}
	for _, m := range set.members {
		a := perhaps
		if ok && !set.large {
			a = m.holds(v)
		}
		if a == no {
			continue
		}
		e := m.effect
		e.match = a
		if j.maps = append(j.maps, e); a == yes {
			j.maps = slices.Clone(j.maps[len(j.maps)-1:])
			return
		}
	}
	if set.other != nil {
		e := *set.other
		if e.match = yes; len(j.maps) > 0 {
			e.match = part
		}
		j.maps = append(j.maps, e)
	}
	if len(j.maps) == 0 {
		j.and(no)
	}
}

func (j *judge) immediate(data attributes) {
	d := data.in(unix.NFTA_IMMEDIATE_DATA)
	register := data.number(unix.NFTA_IMMEDIATE_DREG)
	if register != unix.NFT_REG_VERDICT {
		b := d.get(unix.NFTA_DATA_VALUE)
		j.set(register, value{fields: []field{{size: len(b), spans: exactly(b...)}}})
		return
	}
	e := parseVerdict(d.in(unix.NFTA_DATA_VERDICT))
	j.out.verdict, j.out.chain = e.verdict, e.chain
	j.and(e.match)
}

// parseVerdict reads a verdict. The verdict queue, by which a program decides, counts
// as one that may drop.
func parseVerdict(b attributes) effect {
	e := effect{match: yes, chain: b.text(unix.NFTA_VERDICT_CHAIN)}
	switch expr.VerdictKind(int32(b.number(unix.NFTA_VERDICT_CODE))) {
	case expr.VerdictAccept:
		e.verdict = accepts
	case expr.VerdictDrop:
		e.verdict = drops
	case expr.VerdictJump:
		e.verdict = jumps
	case expr.VerdictGoto:
		e.verdict = goesTo
	case expr.VerdictReturn:
		e.verdict = returns
	case expr.VerdictContinue, expr.VerdictBreak:
	default:
		e.verdict, e.match = drops, perhaps
	}
	return e
}
