package firewall

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Reading is done here and not by google/nftables, for three reasons: that
// skips expressions it does not know, so that a rule somebody changed can look
// like ours; it does not notice that the ruleset changed while it was read; and
// it has no way to tell a table that is not there from other errors.

// A reader reads nf_tables, of the network namespace of the thread that made it.
type reader struct {
	*socket
	// dump are all chains, once they were asked for.
	dump []message
}

// errChanging: nobody can read a ruleset that never rests.
var errChanging = errors.New("nf_tables: the ruleset changed at each of 20 attempts to read it")

// read calls f with a reader, again if the ruleset changed meanwhile: what f
// got in its last call is of one moment. The error wraps ErrUnsupported where
// there is no nf_tables.
func read(ctx context.Context, f func(*reader) error) error {
	conn, err := dial(deadline(ctx))
	if err != nil {
		return explain(err)
	}
	defer conn.close()
	for range 20 {
		r := &reader{socket: conn}
		before, err := r.generation()
		if err != nil {
			return err
		}
		failed := f(r)
		after, err := r.generation()
		if err != nil {
			return err
		}
		if before == after {
			return failed
		}
	}
	return errChanging
}

func deadline(ctx context.Context) time.Time {
	if d, ok := ctx.Deadline(); ok {
		return d
	}
	return time.Now().Add(patience)
}

// explain puts the kernel's refusals into words.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("nf_tables: needs CAP_NET_ADMIN: %w", err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w (%w)", ErrUnsupported, err)
	}
	return err
}

// generation is a number that every change of the ruleset increments. It is
// also the question to which a kernel without nf_tables answers EINVAL
// (nfnetlink_rcv_msg in net/netfilter/nfnetlink.c).
func (r *reader) generation() (uint32, error) {
	msgs, err := r.ask(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC)
	if errors.Is(err, unix.EINVAL) {
		return 0, fmt.Errorf("%w (%w)", ErrUnsupported, err)
	}
	if err != nil || len(msgs) == 0 {
		return 0, err
	}
	const genID = 1 // NFTA_GEN_ID
	return msgs[0].attributes().number(genID), nil
}

// tableFlags reads the flags of a table; the error wraps os.ErrNotExist where
// there is none. (What the kernel says of its use is no use here: it counts
// what transactions have not committed yet.)
func (r *reader) tableFlags(family byte, name string) (uint32, error) {
	msgs, err := r.ask(unix.NFT_MSG_GETTABLE, 0, family, text(unix.NFTA_TABLE_NAME, name))
	if err != nil || len(msgs) == 0 {
		return 0, err
	}
	return msgs[0].attributes().number(unix.NFTA_TABLE_FLAGS), nil
}

// A chain as the kernel has it. Only base chains have typ, hook, priority and policy.
type chain struct {
	family      byte
	table, name string
	flags       uint32 // but NFT_CHAIN_BASE
	typ         string
	hook        uint32
	priority    int32
	policy      uint32
}

// chains reads the chains in whose messages a string is: a host may have ten
// thousand others, of no interest. The kernel lists all or none.
func (r *reader) chains(with string) ([]chain, error) {
	if r.dump == nil {
		var err error
		if r.dump, err = r.ask(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, unix.AF_UNSPEC); err != nil {
			return nil, err
		}
	}
	var chains []chain
	for _, m := range r.dump {
		if bytes.Contains(m, nl.ZeroTerminated(with)) {
			chains = append(chains, parseChain(m))
		}
	}
	return chains, nil
}

func parseChain(m message) chain {
	const ( // linux/netfilter/nf_tables.h; before 5.8 the kernel did not tell flags
		chainFlags = 10 // NFTA_CHAIN_FLAGS
		base       = 1  // NFT_CHAIN_BASE
	)
	a := m.attributes()
	hook := a.in(unix.NFTA_CHAIN_HOOK)
	return chain{
		family:   m.family(),
		table:    a.text(unix.NFTA_CHAIN_TABLE),
		name:     a.text(unix.NFTA_CHAIN_NAME),
		flags:    a.number(chainFlags) &^ base,
		typ:      a.text(unix.NFTA_CHAIN_TYPE),
		hook:     hook.number(unix.NFTA_HOOK_HOOKNUM),
		priority: int32(hook.number(unix.NFTA_HOOK_PRIORITY)),
		policy:   a.number(unix.NFTA_CHAIN_POLICY),
	}
}

// A rule as the kernel or, with args, as iptables-legacy -S has it.
type rule struct {
	chain  string
	handle uint64
	exprs  []expression
	// userdata is nft's: the comment is in it.
	userdata []byte
	args     []string
	// mark is the comment.
	mark string
}

// An expression is a name and its attributes.
type expression struct {
	name   string
	data   []byte
	parsed attributes
}

// attributes are parsed once: many classes of packets meet the same rule.
func (e *expression) attributes() attributes {
	if e.parsed == nil {
		e.parsed = parse(e.data)
	}
	return e.parsed
}

// rules reads the rules of a chain, in order; none where there is no such
// chain. "" is all chains of the table.
func (r *reader) rules(family byte, table, chain string) ([]rule, error) {
	about := []*nl.RtAttr{text(unix.NFTA_RULE_TABLE, table)}
	if chain != "" {
		about = append(about, text(unix.NFTA_RULE_CHAIN, chain))
	}
	msgs, err := r.ask(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, family, about...)
	if err != nil {
		return nil, err
	}
	rules := make([]rule, 0, len(msgs))
	for _, m := range msgs {
		a := m.attributes()
		rl := rule{chain: chain, userdata: a.get(unix.NFTA_RULE_USERDATA)}
		if chain == "" {
			rl.chain = a.text(unix.NFTA_RULE_CHAIN)
		}
		if h := a.get(unix.NFTA_RULE_HANDLE); len(h) == 8 {
			rl.handle = binary.BigEndian.Uint64(h)
		}
		list := a.in(unix.NFTA_RULE_EXPRESSIONS)
		rl.exprs = make([]expression, len(list))
		for i, e := range list {
			part := parse(e.Value)
			rl.exprs[i] = expression{name: part.text(unix.NFTA_EXPR_NAME), data: part.get(unix.NFTA_EXPR_DATA)}
		}
		rl.mark = rl.comment()
		rules = append(rules, rl)
	}
	return rules, nil
}

// A set as the kernel has it, without its elements.
type set struct {
	name                   string
	flags, keyType, keyLen uint32
}

// sets reads the sets of a table.
func (r *reader) sets(family byte, table string) ([]set, error) {
	msgs, err := r.ask(unix.NFT_MSG_GETSET, unix.NLM_F_DUMP, family, text(unix.NFTA_SET_TABLE, table))
	var sets []set
	for _, m := range msgs {
		sets = append(sets, parseSet(m))
	}
	return sets, err
}

// set reads one set of a table.
func (r *reader) set(family byte, table, name string) (set, error) {
	msgs, err := r.ask(unix.NFT_MSG_GETSET, 0, family, text(unix.NFTA_SET_TABLE, table), text(unix.NFTA_SET_NAME, name))
	if err != nil || len(msgs) == 0 {
		return set{}, err
	}
	return parseSet(msgs[0]), nil
}

func parseSet(m message) set {
	a := m.attributes()
	return set{
		name:    a.text(unix.NFTA_SET_NAME),
		flags:   a.number(unix.NFTA_SET_FLAGS),
		keyType: a.number(unix.NFTA_SET_KEY_TYPE),
		keyLen:  a.number(unix.NFTA_SET_KEY_LEN),
	}
}

// An element of a set. In an interval set each is a boundary.
type element struct {
	flags uint32
	key   []byte
	// end is the last key, where keys are concatenations of intervals;
	// verdict is what the element of a verdict map leads to.
	end, verdict []byte
}

// elements reads the elements of a set, in no order. Pointers to them are sorted
// by code that the program has already: 15 KB less of it.
func (r *reader) elements(family byte, table, name string) ([]*element, error) {
	return r.someElements(0, family, table, name)
}

// someElements is elements that ends with errLarge after limit bytes.
func (r *reader) someElements(limit int, family byte, table, name string) ([]*element, error) {
	about := []*nl.RtAttr{text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, name)}
	msgs, err := r.socket.ask(limit, unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, family, about...)
	if err != nil {
		return nil, explain(err)
	}
	var elems []*element
	for _, m := range msgs {
		for _, e := range m.attributes().in(unix.NFTA_SET_ELEM_LIST_ELEMENTS) {
			elems = append(elems, parseElement(parse(e.Value)))
		}
	}
	return elems, nil
}

func parseElement(a attributes) *element {
	const keyEnd = 10 // NFTA_SET_ELEM_KEY_END
	e := &element{flags: a.number(unix.NFTA_SET_ELEM_FLAGS), key: a.in(unix.NFTA_SET_ELEM_KEY).get(unix.NFTA_DATA_VALUE)}
	e.end = a.in(keyEnd).get(unix.NFTA_DATA_VALUE)
	e.verdict = a.in(unix.NFTA_SET_ELEM_DATA).get(unix.NFTA_DATA_VERDICT)
	return e
}

// ask asks a question and explains a refusal.
func (r *reader) ask(typ, flags int, family byte, about ...*nl.RtAttr) ([]message, error) {
	msgs, err := r.socket.ask(0, typ, flags, family, about...)
	return msgs, explain(err)
}

// be32 reads what the kernel puts as big-endian; 0 if it is not there.
func be32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func cstring(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
