package firewall

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
)

const netdev = byte(nftables.TableFamilyNetdev)

// A SpoofCheck drops frames that a container sends with an address of another: a chain
// of the netdev family at the hook ingress of the host's end of its veth pair, in a
// table of the network. It drops frames with another source MAC address. If the
// container's addresses are known, it also drops packets from other addresses, ARP and
// neighbour discovery that claim another address or MAC address, router advertisements,
// redirects, and VLAN tags inside of VLAN tags. Packets of a host that has no address
// yet pass: DHCP, ARP probes (RFC 5227), duplicate address detection (RFC 4862).
type SpoofCheck struct {
	// Network is the network's name.
	Network string
	// Port is the host's end of the veth pair; the chain has its name.
	Port string
	// MAC is the container's MAC address.
	MAC string
	// Addrs are the container's addresses. Its link-local address (RFC 4291,
	// appendix A) is always allowed. Without Addrs only the MAC address is checked.
	Addrs []netip.Addr
}

// Add makes the chain, and replaces one of the same name.
func (s SpoofCheck) Add(ctx context.Context) error {
	// Deleting a chain makes the kernel wait for all processors. A chain of the name
	// exists only if a former link had it, and only the newest kernels keep that.
	err := s.add(ctx, false)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EOPNOTSUPP) {
		err = s.add(ctx, true)
	}
	return s.wrap(err)
}

func (s SpoofCheck) add(ctx context.Context, anew bool) error {
	c, err := connect(ctx, 0)
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: config.FirewallTable(s.Network)})
	if anew {
		c.DelChain(c.AddChain(&nftables.Chain{Table: t, Name: s.Port}))
	}
	policy := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{Table: t, Name: s.Port, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress,
		Priority: nftables.ChainPriorityFilter, Policy: &policy, Device: s.Port})
	c.FlushChain(chain)
	rules, err := s.rules(func(set *nftables.Set, elems []nftables.SetElement) error {
		set.Table, set.Anonymous, set.Constant = t, true, true
		return c.AddSet(set, elems)
	})
	if err != nil {
		return err
	}
	for _, exprs := range rules {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs, UserData: s.mark()})
	}
	return c.Flush()
}

// Exists reports whether the chain exists with the rules that Add makes.
func (s SpoofCheck) Exists(ctx context.Context) (bool, error) {
	var have []rule
	err := read(ctx, func(r *reader) (err error) {
		have, err = r.rules(netdev, config.FirewallTable(s.Network), s.Port)
		return err
	})
	if err != nil {
		return false, s.wrap(err)
	}
	want, err := s.rules(func(*nftables.Set, []nftables.SetElement) error { return nil })
	if err != nil {
		return false, err
	}
	mark := string(s.mark())
	return len(have) == len(want) && !slices.ContainsFunc(have, func(r rule) bool { return string(r.userdata) != mark }), nil
}

// DelSpoofChecks deletes the chains of ports. Chains that do not exist are fine: the
// kernel may have deleted them with their links.
func DelSpoofChecks(ctx context.Context, network string, ports ...string) error {
	have, err := SpoofChecks(ctx, network)
	if err != nil || len(have) == 0 {
		return err
	}
	c, err := connect(ctx, 0)
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyNetdev, Name: config.FirewallTable(network)}
	var gone []string
	for _, p := range ports {
		if slices.Contains(have, p) {
			gone = append(gone, p)
			c.DelChain(&nftables.Chain{Table: t, Name: p})
		}
	}
	if len(gone) == 0 {
		return nil
	}
	if err := c.Flush(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("nftables table netdev %s: %w", t.Name, explain(err))
	}
	return nil
}

// SpoofChecks lists the ports that have a chain in the network's table.
func SpoofChecks(ctx context.Context, network string) ([]string, error) {
	var chains []chain
	err := read(ctx, func(r *reader) (err error) {
		chains, err = r.chains(config.FirewallTable(network))
		return err
	})
	if err != nil && !errors.Is(err, ErrUnsupported) {
		return nil, fmt.Errorf("nftables chains: %w", err)
	}
	var ports []string
	for _, c := range chains {
		if c.family == netdev && c.table == config.FirewallTable(network) {
			ports = append(ports, c.name)
		}
	}
	return ports, nil
}

// DelAllSpoofChecks deletes the network's table with all its chains, if there is one.
func DelAllSpoofChecks(ctx context.Context, network string) error {
	name := config.FirewallTable(network)
	err := read(ctx, func(r *reader) error {
		_, err := r.tableFlags(netdev, name)
		return err
	})
	if err == nil {
		var c *nftables.Conn
		if c, err = connect(ctx, 0); err == nil {
			c.DelTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: name})
			err = explain(c.Flush())
		}
	}
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrUnsupported) {
		return nil
	}
	return fmt.Errorf("nftables table netdev %s: %w", name, err)
}

func (s SpoofCheck) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("spoof check of %s (nftables table netdev %s): %w", s.Port, config.FirewallTable(s.Network), explain(err))
}

// mark is user data with a comment that is a hash of the addresses.
func (s SpoofCheck) mark() []byte {
	addrs := make([]string, len(s.Addrs))
	for i, a := range s.Addrs {
		addrs[i] = a.String()
	}
	slices.Sort(addrs)
	text := fmt.Sprintf("ovs-gre %x", sha256.Sum256(fmt.Append(nil, s.MAC, addrs)))[:24]
	return userdata.AppendString(nil, userdata.TypeComment, text)
}

// An operand is a field of the packet that a test loads into register 1, and its size in
// bytes.
type operand struct {
	load expr.Any
	size int
}

// The operands of the rules, by their offsets in the headers of Ethernet, ARP (RFC 826),
// IPv4 (RFC 791), IPv6 (RFC 8200), UDP, ICMPv6 and neighbour discovery (RFC 4861).
var (
	etherSource = payload(expr.PayloadBaseLLHeader, 6, 6)
	arpMAC      = payload(expr.PayloadBaseNetworkHeader, 8, 6)
	arpIP       = payload(expr.PayloadBaseNetworkHeader, 14, 4)
	ip4Source   = payload(expr.PayloadBaseNetworkHeader, 12, 4)
	ip6Length   = payload(expr.PayloadBaseNetworkHeader, 4, 2)
	ip6Next     = payload(expr.PayloadBaseNetworkHeader, 6, 1)
	ip6Source   = payload(expr.PayloadBaseNetworkHeader, 8, 16)
	udpTo       = payload(expr.PayloadBaseTransportHeader, 2, 2)
	icmpType    = payload(expr.PayloadBaseTransportHeader, 0, 1)
	ndTarget    = payload(expr.PayloadBaseTransportHeader, 8, 16)
	ndOption    = payload(expr.PayloadBaseTransportHeader, 24, 1)
	ndMAC       = payload(expr.PayloadBaseTransportHeader, 26, 6)
	rsOption    = payload(expr.PayloadBaseTransportHeader, 8, 1)
	rsMAC       = payload(expr.PayloadBaseTransportHeader, 10, 6)
	protocol    = &operand{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, 2}
	transport   = &operand{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, 1}
)

func payload(base expr.PayloadBase, offset, size uint32) *operand {
	return &operand{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: size}, int(size)}
}

// A test compares an operand with a number. With own it is true if the operand is none
// of these addresses.
type test struct {
	of     *operand
	op     expr.CmpOp
	number uint64
	own    []netip.Addr
}

func is(o *operand, n uint64) test    { return test{of: o, op: expr.CmpOpEq, number: n} }
func not(o *operand, n uint64) test   { return test{of: o, op: expr.CmpOpNeq, number: n} }
func above(o *operand, n uint64) test { return test{of: o, op: expr.CmpOpGt, number: n} }

func noneOf(o *operand, own []netip.Addr) test { return test{of: o, own: own} }

// A spoofChain collects the expressions of rules. newSet makes a constant set.
type spoofChain struct {
	rules  [][]expr.Any
	newSet func(*nftables.Set, []nftables.SetElement) error
	errs   []error
}

// drop adds a rule that drops packets for which all tests are true.
func (c *spoofChain) drop(tests ...test) {
	var exprs []expr.Any
	for _, t := range tests {
		exprs = append(exprs, t.of.load)
		if t.own != nil {
			exprs = append(exprs, c.lookup(t))
			continue
		}
		data := binary.BigEndian.AppendUint64(make([]byte, 8), t.number)
		exprs = append(exprs, &expr.Cmp{Op: t.op, Register: 1, Data: data[len(data)-t.of.size:]})
	}
	c.rules = append(c.rules, append(exprs, &expr.Verdict{Kind: expr.VerdictDrop}))
}

func (c *spoofChain) lookup(t test) expr.Any {
	set := &nftables.Set{KeyType: nftables.TypeIPAddr}
	if t.of.size == 16 {
		set.KeyType = nftables.TypeIP6Addr
	}
	var elems []nftables.SetElement
	for _, a := range t.own {
		elems = append(elems, nftables.SetElement{Key: a.AsSlice()})
	}
	c.errs = append(c.errs, c.newSet(set, elems))
	return &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: true}
}

// The types of neighbour discovery, and two of its options.
const (
	solicitRouter, advertiseRouter, solicit, advertise, redirect = 133, 134, 135, 136, 137

	sourceMAC, targetMAC = 1, 2
)

// rules are the expressions of the chain's rules; each drops. newSet makes a
// constant set.
func (s SpoofCheck) rules(newSet func(*nftables.Set, []nftables.SetElement) error) ([][]expr.Any, error) {
	hw, err := net.ParseMAC(s.MAC)
	if err != nil {
		return nil, err
	}
	mac := binary.BigEndian.Uint64(append([]byte{0, 0}, hw...))
	c := spoofChain{newSet: newSet}
	c.drop(not(etherSource, mac))
	if len(s.Addrs) == 0 {
		return c.rules, nil
	}
	own4, own6 := []netip.Addr{netip.IPv4Unspecified()}, []netip.Addr{config.LinkLocal(s.MAC)}
	for _, a := range s.Addrs {
		if a.Is4() {
			own4 = append(own4, a)
		} else {
			own6 = append(own6, a)
		}
	}
	// The kernel has taken one tag off when a frame comes here.
	c.drop(is(protocol, unix.ETH_P_8021Q))
	c.drop(is(protocol, unix.ETH_P_8021AD))

	arp := is(protocol, unix.ETH_P_ARP)
	c.drop(arp, not(arpMAC, mac))
	c.drop(arp, noneOf(arpIP, own4))

	v4 := is(protocol, unix.ETH_P_IP)
	c.drop(v4, noneOf(ip4Source, own4))
	c.drop(v4, is(ip4Source, 0), not(transport, unix.IPPROTO_UDP))
	c.drop(v4, is(ip4Source, 0), not(udpTo, 67)) // DHCP's server

	v6 := is(protocol, unix.ETH_P_IPV6)
	c.drop(v6, noneOf(ip6Source, append([]netip.Addr{netip.IPv6Unspecified()}, own6...)))
	c.drop(v6, is(ip6Source, 0), not(transport, unix.IPPROTO_ICMPV6))

	c.discovery(mac, own6)
	return c.rules, errors.Join(c.errs...)
}

// discovery adds the rules about neighbour discovery.
func (c *spoofChain) discovery(mac uint64, own []netip.Addr) {
	nd := func(typ uint64, tests ...test) {
		c.drop(append([]test{is(protocol, unix.ETH_P_IPV6), is(transport, unix.IPPROTO_ICMPV6), is(icmpType, typ)}, tests...)...)
	}
	// Messages behind extension headers, or with more than one option, could not be
	// checked.
	for typ := uint64(solicitRouter); typ <= redirect; typ++ {
		nd(typ, not(ip6Next, unix.IPPROTO_ICMPV6))
	}
	nd(advertiseRouter)
	nd(redirect)
	nd(solicitRouter, above(ip6Length, 8+8))
	nd(solicitRouter, is(rsOption, sourceMAC), not(rsMAC, mac))
	nd(solicit, above(ip6Length, 24+8))
	nd(solicit, is(ndOption, sourceMAC), not(ndMAC, mac))
	nd(solicit, is(ip6Source, 0), noneOf(ndTarget, own))
	nd(advertise, above(ip6Length, 24+8))
	nd(advertise, is(ndOption, targetMAC), not(ndMAC, mac))
	nd(advertise, noneOf(ndTarget, own))
}
