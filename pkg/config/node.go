package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
)

// A Node is one host of the network.
type Node struct {
	// Name is unique in the network.
	Name string
	// Address is the node's address on the underlay: the remote address of tunnels
	// to it, and the next hop of direct routes. All nodes have one IP family.
	Address netip.Addr
	// Subnets are the node's container subnets. No two of a network overlap.
	Subnets []netip.Prefix
	// Key is the node's public key for WireGuard, in base64 as wg(8) prints it;
	// "" means that it is not known yet.
	Key string
}

// MarshalJSON writes the form that DecodeNodes reads.
func (n Node) MarshalJSON() ([]byte, error) { return n.appendJSON(nil), nil }

// appendJSON does not go by encoding/json, which takes ten times as long: every
// ADD and CHECK writes the whole list.
func (n Node) appendJSON(b []byte) []byte {
	b = append(b, `{"name":`...)
	if !isPlain(n.Name) {
		name, _ := json.Marshal(n.Name) // a string never fails
		b = append(b, name...)
	} else {
		b = append(append(append(b, '"'), n.Name...), '"')
	}
	b = n.Address.AppendTo(append(b, `,"address":"`...))
	b = append(b, `","subnets":[`...)
	for i, s := range n.Subnets {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(s.AppendTo(append(b, '"')), '"')
	}
	b = append(b, ']')
	if n.Key != "" {
		b = append(append(append(b, `,"key":"`...), n.Key...), '"') // base64
	}
	return append(b, '}')
}

// isPlain reports whether JSON has a string as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

// EncodeNodes writes a list of nodes, one a line, as DecodeNodes reads it.
func EncodeNodes(nodes []Node) []byte {
	b := make([]byte, 0, 100*len(nodes)+5)
	b = append(b, '[')
	for i, n := range nodes {
		b = n.appendLine(b, i)
	}
	return append(b, "\n]\n"...)
}

// appendLine writes the node with index i of a list.
func (n Node) appendLine(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return n.appendJSON(append(b, "\n  "...))
}

// IsEncoded reports whether r has just what EncodeNodes writes of the lists, one behind
// the other. It takes no memory for all of it, which costs more than comparing.
func IsEncoded(r io.Reader, lists ...[]Node) bool {
	const piece = 16 << 10
	var have []byte
	next := func(want []byte) bool {
		have = slices.Grow(have[:0], len(want))[:len(want)]
		_, err := io.ReadFull(r, have)
		return err == nil && bytes.Equal(have, want)
	}
	b, i := append(make([]byte, 0, piece), '['), 0
	for _, list := range lists {
		for _, n := range list {
			if b = n.appendLine(b, i); len(b) > piece*3/4 {
				if !next(b) {
					return false
				}
				b = b[:0]
			}
			i++
		}
	}
	if !next(append(b, "\n]\n"...)) {
		return false
	}
	_, err := io.ReadFull(r, make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func (n Node) wire() nodeJSON {
	w := nodeJSON{Name: n.Name, Address: n.Address.String(), Key: n.Key}
	for _, s := range n.Subnets {
		w.Subnets = append(w.Subnets, s.String())
	}
	return w
}

// Check returns the problems of a single node, without regard to others. The error
// wraps ErrInvalid.
func (n Node) Check() error {
	var p problems
	if p.node("node", n.wire()); len(p) == 0 {
		p.clashes("node", new(NodeSet).Clashes(&n))
	}
	return p.err()
}

// String is the node's name and address, for messages.
func (n Node) String() string {
	if !n.Address.IsValid() || n.Name == n.Address.String() {
		return n.Name // as those of a Fan
	}
	return fmt.Sprintf("%s (%s)", n.Name, n.Address)
}

// Gateways returns the gateway address of each of the node's subnets.
func (n Node) Gateways() []netip.Addr {
	gws := make([]netip.Addr, len(n.Subnets))
	for i, s := range n.Subnets {
		gws[i] = Gateway(s)
	}
	return gws
}

type nodeJSON struct {
	Name    string   `json:"name"`
	Address string   `json:"address"`
	Subnets []string `json:"subnets"`
	Key     string   `json:"key,omitempty"`
}

// DecodeNodes reads and checks a list of nodes, as the key nodes and a nodes file have
// it. key is the list's name in messages. The error joins all problems; each wraps
// ErrInvalid. The nodes that are valid by themselves are returned with it.
func DecodeNodes(key string, raw []byte) ([]Node, error) {
	if nodes, ok := quickNodes(raw); ok {
		return nodes, nil
	}
	var p problems
	if json.Valid(raw) {
		p.strict(key, raw, nodesShape)
	}
	nodes := p.nodes(key, raw)
	return nodes, p.err()
}

func (p *problems) nodes(key string, raw []byte) []Node {
	if nodes, ok := quickNodes(raw); ok {
		return nodes
	}
	list, ok := p.nodeList(key, raw)
	if !ok {
		return nil
	}
	nodes := make([]Node, 0, len(list))
	for i, w := range list {
		before := len(*p)
		n := p.node(fmt.Sprintf("%s[%d]", key, i), w)
		if len(*p) == before {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == len(list) {
		p.checkNodes(key, nodes)
	}
	return nodes
}

// nodeList decodes the JSON of the list. It decodes entry by entry, which is several
// times slower but can name the wrong entry, only when decoding the list as a whole fails.
func (p *problems) nodeList(key string, raw []byte) ([]nodeJSON, bool) {
	var list []nodeJSON
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if dec.Decode(&list) == nil && list != nil && len(bytes.TrimSpace(raw[dec.InputOffset():])) == 0 {
		return list, true
	}
	var entries []json.RawMessage
	err := json.Unmarshal(raw, &entries)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		p.invalid(key, nil, fmt.Sprintf("not JSON: at byte %d: %v", syntax.Offset, syntax))
		return nil, false
	}
	if err != nil || entries == nil {
		p.invalid(key, raw, `want a list of {"name","address","subnets"}`)
		return nil, false
	}
	for i, e := range entries {
		at := fmt.Sprintf("%s[%d]", key, i)
		var fields map[string]json.RawMessage
		if json.Unmarshal(e, &fields) != nil {
			p.invalid(at, e, `want {"name","address","subnets"}`)
			continue
		}
		for _, k := range sortedKeys(fields) {
			var err error
			switch k {
			case "name", "address", "key":
				_, err = decode[string](fields[k])
			case "subnets":
				_, err = decode[[]string](fields[k])
			default:
				if p.noneOf(at + "." + k) {
					p.unknown(at+".", k, []string{"name", "address", "subnets", "key"})
				}
			}
			if err != nil {
				p.invalid(at+"."+k, fields[k], err.Error())
			}
		}
	}
	if p.noneOf(key) {
		p.invalid(key, raw, `want a list of {"name","address","subnets"}`)
	}
	return nil, false
}

func (p *problems) node(at string, w nodeJSON) Node {
	n := Node{Name: w.Name, Key: w.Key}
	if w.Name == "" {
		p.invalid(at+".name", nil, "missing: every node needs a name")
	} else {
		if !isPrintable(w.Name) || len(w.Name) > 253 {
			p.invalid(at+".name", quote(w.Name), "want at most 253 printable characters")
		}
		at += " (" + printable(w.Name) + ")"
	}
	addr, err := netip.ParseAddr(w.Address)
	switch {
	case w.Address == "":
		p.invalid(at+".address", nil, "missing: the node's address on the underlay")
	case err != nil:
		p.invalid(at+".address", quote(w.Address), "not an IP address")
	case !isUnderlay(addr):
		p.invalid(at+".address", quote(w.Address), "want a plain unicast address of the underlay")
	}
	n.Address = addr
	if w.Key != "" && !isKey(w.Key) {
		p.invalid(at+".key", quote(w.Key), "want a public key of WireGuard's, 32 bytes in base64: ovs-grectl key prints a host's own")
	}
	if len(w.Subnets) == 0 {
		p.invalid(at+".subnets", nil, "missing: the node's container subnets")
	}
	for j, s := range w.Subnets {
		if sub, ok := p.prefix(fmt.Sprintf("%s.subnets[%d]", at, j), s); ok {
			n.Subnets = append(n.Subnets, sub)
			if sub.Addr().BitLen()-sub.Bits() < 2 {
				p.invalid(fmt.Sprintf("%s.subnets[%d]", at, j), quote(s), "too small: it needs a gateway and at least one container")
			}
			for _, no := range notForContainers {
				if sub.Overlaps(no) {
					p.invalid(fmt.Sprintf("%s.subnets[%d]", at, j), quote(s), fmt.Sprintf("overlaps %s, which is not for containers", no))
					break
				}
			}
		}
	}
	return n
}

// isKey reports whether s is a key as wg(8) prints it, in the one form that it has.
func isKey(s string) bool {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && len(raw) == 32 && len(s) == base64.StdEncoding.EncodedLen(32) // the decoder skips line breaks
}

// notForContainers are addresses with a meaning of their own: this host,
// loopback, link-local of IPv6, multicast (RFC 6890, RFC 4291).
var notForContainers = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// prefix parses a subnet in CIDR notation without host bits.
func (p *problems) prefix(key, s string) (netip.Prefix, bool) {
	sub, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		p.invalid(key, quote(s), "not a subnet in CIDR notation")
		return sub, false
	case sub.Addr().Is4In6():
		p.invalid(key, quote(s), "IPv4 in IPv6 is not supported")
		return sub, false
	case sub != sub.Masked():
		p.invalid(key, quote(s), fmt.Sprintf("has host bits set, want %s", sub.Masked()))
		return sub, false
	}
	return sub, true
}

// checkNodes checks what must hold between nodes.
func (p *problems) checkNodes(key string, nodes []Node) {
	var set NodeSet
	set.grow(len(nodes))
	for i := range nodes {
		p.clashes(fmt.Sprintf("%s[%d]", key, i), set.Clashes(&nodes[i]))
		set.Add(&nodes[i])
	}
}

func (p *problems) clashes(at string, list []Clash) {
	for _, c := range list {
		p.invalid(at+"."+c.Key, quote(c.Value), c.Reason)
	}
}
