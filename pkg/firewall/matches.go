package firewall

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// Matches and targets of xtables, which iptables-nft keeps in nf_tables as they are.

// onward are the targets of iptables that have no verdict: the next rule follows.
var onward = []string{
	"", "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "SECMARK", "CONNSECMARK", "TCPMSS", "TCPOPTSTRIP", "CLASSIFY", "TOS", "DSCP", "ECN",
	"TTL", "HL", "CHECKSUM", "SET", "TRACE", "AUDIT", "RATEEST", "LED", "TEE", "IDLETIMER", "NOTRACK", "CT", "HMARK",
}

func (j *judge) xtTarget(name string) {
	switch {
	case name == "REJECT":
		j.out.verdict = drops
	case !slices.Contains(onward, name):
		j.and(perhaps)
		j.out.verdict = drops
	}
}

// xtMatch evaluates a match of iptables: comment, conntrack, state, and the ports of tcp
// and udp. The answer to others is perhaps.
func (j *judge) xtMatch(data attributes) {
	info := data.get(unix.NFTA_MATCH_INFO)
	switch rev := data.number(unix.NFTA_MATCH_REV); data.text(unix.NFTA_MATCH_NAME) {
	case "comment":
	case "conntrack":
		j.and(parseConntrack(info, rev).judge(j.p.State))
	case "state":
		if len(info) < 4 {
			j.and(perhaps)
			return
		}
		// struct xt_state_info: the mask has conntrack's bits.
		j.and(conntrack{states: uint16(binary.NativeEndian.Uint32(info)), asksState: true}.judge(j.p.State))
	case "udp":
		j.ports(info, 8)
	case "tcp":
		if j.ports(info, 11); len(info) > 9 && (info[8] != 0 || info[9] != 0) {
			j.and(perhaps) // it also has a condition on an option or flags
		}
	default:
		j.and(perhaps)
	}
}

// ports evaluates the ports of struct xt_udp or xt_tcp; inversions is the offset of its
// inversion flags.
func (j *judge) ports(info []byte, inversions int) {
	if len(info) <= inversions {
		j.and(perhaps)
		return
	}
	inverted := info[inversions]
	src, dst := j.p.ports()
	for i, f := range []field{src, dst} {
		lo, hi := binary.NativeEndian.Uint16(info[4*i:]), binary.NativeEndian.Uint16(info[4*i+2:])
		a := f.in([]span{{binary.BigEndian.AppendUint16(nil, lo), binary.BigEndian.AppendUint16(nil, hi)}})
		if inverted>>i&1 != 0 {
			a = a.not()
		}
		j.and(a)
	}
}

// conntrack is the match of that name.
type conntrack struct {
	asksState, asksStatus bool
	notState, notStatus   bool
	states                uint16
	statuses              uint16
	// more: it has other conditions, too.
	more bool
}

// ctStateDNAT is a bit of xt_conntrack's state mask that ct state does not have.
const ctStateDNAT = 1 << 7

// parseConntrack reads struct xt_conntrack_mtinfo1, 2 or 3.
func parseConntrack(info []byte, rev uint32) conntrack {
	const flagState, flagStatus, flagAlias = uint16(xt.ConntrackState), uint16(xt.ConntrackStatus), uint16(xt.ConntrackStateAlias)
	if rev < 1 || len(info) < 152 || (rev > 1 && len(info) < 156) {
		return conntrack{more: true}
	}
	flags, inverted := binary.NativeEndian.Uint16(info[146:]), binary.NativeEndian.Uint16(info[148:])
	c := conntrack{
		asksState: flags&flagState != 0, asksStatus: flags&flagStatus != 0,
		notState: inverted&flagState != 0, notStatus: inverted&flagStatus != 0,
		more: flags&^(flagState|flagStatus|flagAlias) != 0,
	}
	if rev == 1 {
		c.states, c.statuses = uint16(info[150]), uint16(info[151])
	} else {
		c.states, c.statuses = binary.NativeEndian.Uint16(info[150:]), binary.NativeEndian.Uint16(info[152:])
	}
	return c
}

func (c conntrack) judge(s State) answer {
	state, status := s.bits()
	if s == Translated {
		state |= ctStateDNAT
	}
	out := yes
	if c.more {
		out = perhaps
	}
	if c.asksState && (uint32(c.states)&state != 0) == c.notState {
		return no
	}
	if c.asksStatus && (uint32(c.statuses)&status != 0) == c.notStatus {
		return no
	}
	return out
}
