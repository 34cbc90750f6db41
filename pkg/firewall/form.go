package firewall

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// A form has the attributes that our accept rules use: links, prefixes, state,
// verdict and comment. A rule is the wanted one if its form is equal to the wanted
// form.
type form struct {
	in, out string
	// from and to are the zero Prefix where the rule has no such condition.
	from, to netip.Prefix
	// state are the conntrack states as iptables lists them, in the order of
	// stateName.
	state string
	// verdict as in iptables: ACCEPT, or the chain that the rule jumps to.
	verdict string
	comment string
	// more: the rule has conditions or effects that our rules do not have.
	more bool
}

// Conntrack states of our rules. nftables has no single condition for all three.
const (
	stateAll   = "RELATED,ESTABLISHED,DNAT"
	stateKnown = "RELATED,ESTABLISHED"
	stateDNAT  = "DNAT"
)

func stateName(states uint16) string {
	var list []string
	for _, s := range []struct {
		bit  uint16
		name string
	}{{ctRelated, "RELATED"}, {ctEstablished, "ESTABLISHED"}, {ctStateDNAT, "DNAT"}, {ctNew, "NEW"}} {
		if states&s.bit != 0 {
			list = append(list, s.name)
			states &^= s.bit
		}
	}
	if states != 0 {
		list = append(list, "…")
	}
	return strings.Join(list, ",")
}

// String is the form as arguments of iptables; … stands for f.more.
func (f form) String() string {
	var args []string
	asked := [][2]string{{"-i", f.in}, {"-o", f.out}, {"-s", prefixString(f.from)}, {"-d", prefixString(f.to)}, {"--ctstate", f.state}}
	for _, a := range asked {
		if a[1] != "" {
			args = append(args, a[0]+" "+a[1])
		}
	}
	if f.more {
		args = append(args, "…")
	}
	if f.comment != "" {
		args = append(args, "--comment "+quoted(f.comment))
	}
	if f.verdict != "" {
		args = append(args, "-j "+f.verdict)
	}
	return strings.Join(args, " ")
}

func prefixString(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

func quoted(s string) string {
	if strings.ContainsAny(s, " \"'\\") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return s
}

func (r *rule) text() string {
	if r.args != nil {
		return strings.Join(r.args, " ")
	}
	return r.form().String()
}

// comment is the rule's comment, in nft's or in iptables' form.
func (r *rule) comment() string {
	if r.args != nil {
		if i := slices.Index(r.args, "--comment"); i >= 0 && i+1 < len(r.args) {
			return r.args[i+1]
		}
		return ""
	}
	if c := nftComment(r.userdata); c != "" {
		return c
	}
	for i := range r.exprs {
		e := &r.exprs[i]
		if e.name != "match" {
			continue
		}
		if data := e.attributes(); data.text(unix.NFTA_MATCH_NAME) == "comment" {
			return data.text(unix.NFTA_MATCH_INFO) // struct xt_comment_info is the text alone
		}
	}
	return ""
}

func (r *rule) form() form {
	if r.args != nil {
		return savedForm(r.args)
	}
	d := decoder{form: form{comment: r.comment()}}
	for i := range r.exprs {
		d.step(&r.exprs[i])
	}
	return d.form
}

// A decoder makes a form from the expressions of one rule. loaded is the part of the
// packet in the register, mask the mask applied to it.
type decoder struct {
	form
	loaded string
	mask   []byte
}

var (
	metaKeys = map[uint32]string{unix.NFT_META_IIFNAME: "in", unix.NFT_META_OIFNAME: "out", unix.NFT_META_NFPROTO: "family"}
	ctKeys   = map[uint32]string{unix.NFT_CT_STATE: "state", unix.NFT_CT_STATUS: "status"}
)

func (d *decoder) step(e *expression) {
	switch data := e.attributes(); e.name {
	case "counter":
	case "meta":
		d.mask, d.loaded = nil, metaKeys[data.number(unix.NFTA_META_KEY)]
	case "ct":
		d.mask, d.loaded = nil, ctKeys[data.number(unix.NFTA_CT_KEY)]
	case "payload":
		d.mask, d.loaded = nil, ""
		if data.number(unix.NFTA_PAYLOAD_BASE) == unix.NFT_PAYLOAD_NETWORK_HEADER {
			d.address(data.number(unix.NFTA_PAYLOAD_OFFSET), data.number(unix.NFTA_PAYLOAD_LEN))
		}
	case "bitwise":
		d.mask = data.in(unix.NFTA_BITWISE_MASK).get(unix.NFTA_DATA_VALUE)
	case "cmp":
		d.compare(data.number(unix.NFTA_CMP_OP), data.in(unix.NFTA_CMP_DATA).get(unix.NFTA_DATA_VALUE))
	case "match":
		d.match(data)
	case "target":
		d.verdict = data.text(unix.NFTA_TARGET_NAME)
	case "reject":
		d.verdict = "REJECT"
	case "immediate":
		v := parseVerdict(data.in(unix.NFTA_IMMEDIATE_DATA).in(unix.NFTA_DATA_VERDICT))
		d.verdict = map[verdict]string{accepts: "ACCEPT", drops: "DROP", returns: "RETURN", jumps: v.chain, goesTo: v.chain}[v.verdict]
		d.more = d.more || v.verdict == goesTo || v.match != yes
	default:
		d.more = true
	}
}

// address sets loaded if the payload is an address or the beginning of one.
func (d *decoder) address(offset, size uint32) {
	switch {
	case offset == 12 && size <= 4:
		d.loaded = "from4"
	case offset == 16 && size <= 4:
		d.loaded = "to4"
	case offset == 8 && size <= 16:
		d.loaded = "from6"
	case offset == 24 && size <= 16:
		d.loaded = "to6"
	}
}

func (d *decoder) compare(op uint32, b []byte) {
	state := d.loaded == "state" || d.loaded == "status"
	if state && op == unix.NFT_CMP_NEQ && len(d.mask) == 4 && d.state == "" && len(bytes.Trim(b, "\x00")) == 0 {
		mask := binary.NativeEndian.Uint32(d.mask)
		if d.state = stateName(uint16(mask)); d.loaded == "status" {
			if d.state = stateDNAT; mask != ctDNAT {
				d.state = "…"
			}
		}
		return
	}
	if op != unix.NFT_CMP_EQ || state {
		d.more = true
		return
	}
	name := func(into *string) {
		// A name without the final zero matches all names that begin so.
		if *into != "" || !slices.Contains(b, 0) {
			d.more = true
		}
		*into = cstring(b)
	}
	switch d.loaded {
	case "in":
		name(&d.in)
	case "out":
		name(&d.out)
	case "from4", "from6":
		d.prefix(&d.from, b)
	case "to4", "to6":
		d.prefix(&d.to, b)
	case "family":
	default:
		d.more = true
	}
}

func (d *decoder) prefix(into *netip.Prefix, b []byte) {
	full := make([]byte, map[byte]int{'4': 4, '6': 16}[d.loaded[len(d.loaded)-1]])
	n := 8 * len(b)
	if d.mask != nil {
		if n = 0; !leading(d.mask) {
			d.more = true
		}
		for _, m := range d.mask {
			n += bits.OnesCount8(m)
		}
	}
	copy(full, b)
	a, _ := netip.AddrFromSlice(full)
	if into.IsValid() {
		d.more = true
	}
	*into = netip.PrefixFrom(a, n)
}

func (d *decoder) match(data attributes) {
	switch data.text(unix.NFTA_MATCH_NAME) {
	case "comment":
	case "conntrack":
		c := parseConntrack(data.get(unix.NFTA_MATCH_INFO), data.number(unix.NFTA_MATCH_REV))
		if d.state = stateName(c.states); c.more || !c.asksState || c.notState || c.asksStatus {
			d.state, d.more = "", true
		}
	default:
		d.more = true
	}
}

// nftComment finds the comment in the user data of a rule: a list of type, length and
// value, with one byte each for the first two (libnftnl's udata.h). The kernel keeps
// any bytes; userdata.GetString panics on a list that is cut off.
func nftComment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == byte(userdata.TypeComment) {
			return strings.TrimSuffix(string(b[2:2+int(b[1])]), "\x00")
		}
		b = b[2+int(b[1]):]
	}
	return ""
}
