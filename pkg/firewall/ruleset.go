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

// google/nftables is not used for reading, for three reasons: it skips expressions
// that it does not know, so that a changed rule can look like ours; it does not notice
// that the ruleset changes while it is read; and its errors do not tell whether a table
// is missing.

// A reader reads nf_tables of the network namespace of the thread that made it.
type reader struct {
	*socket
	// dump are all chains, once they were read.
	dump []message
}

// errChanging is the error of read about a ruleset that changes all the time.
var errChanging = errors.New("nf_tables: the ruleset changed at each of 20 attempts to read it")

// read calls f with a reader, and again if the ruleset changed in between, so that the
// last call of f has read one state of it. The error wraps ErrUnsupported where there
// is no nf_tables.
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
	return time.Now().Add(defaultTimeout)
}

// explain adds a text to errnos of the kernel.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("nf_tables: needs CAP_NET_ADMIN: %w", err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w (%w)", ErrUnsupported, err)
	}
	return err
}

// generation is a number that every change of the ruleset increments. A kernel without
// nf_tables answers EINVAL (nfnetlink_rcv_msg in net/netfilter/nfnetlink.c).
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

// tableFlags reads the flags of a table. The error wraps os.ErrNotExist where there is
// no such table.
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
	flags       uint32 // without NFT_CHAIN_BASE
	typ         string
	hook        uint32
	priority    int32
	policy      uint32
}

// chains reads all chains and parses those whose message contains a string: a host may
// have ten thousand others, and the kernel has no filter.
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

// A rule is one of nf_tables, or, with args, a line of iptables-legacy -S.
type rule struct {
	chain  string
	handle uint64
	exprs  []expression
	// userdata is nft's, with the comment.
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

// rules reads the rules of a chain, in order; none where there is no such chain. ""
// reads all chains of the table.
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

// A set is a set of nf_tables without its elements.
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

// An element is one of a set. In an interval set each is a boundary.
type element struct {
	flags uint32
	key   []byte
	// end is the last key where keys are concatenations of intervals; verdict is
	// that of an element of a verdict map.
	end, verdict []byte
}

// elements reads the elements of a set, in no order. It returns pointers because
// another instance of slices.SortFunc already sorts pointers: 15 KB less code.
func (r *reader) elements(family byte, table, name string) ([]*element, error) {
	return r.someElements(0, family, table, name)
}

// someElements is elements, but returns errLarge if there are more than limit bytes; 0
// is no limit.
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

// ask makes a request without a limit.
func (r *reader) ask(typ, flags int, family byte, about ...*nl.RtAttr) ([]message, error) {
	msgs, err := r.socket.ask(0, typ, flags, family, about...)
	return msgs, explain(err)
}

// be32 reads a big-endian number; it is 0 if b has not four bytes.
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
