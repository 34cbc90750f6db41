package config

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
)

// A Fan takes the place of a list of nodes. Each host has one container subnet: Containers,
// followed by the bits of the host's address behind Underlay. With 172.16.0.0/16 and
// 10.0.0.0/8 the host 172.16.3.7 has 10.3.7.0/24. Both prefixes are IPv4. The zero Fan is
// none.
type Fan struct {
	// Underlay holds the hosts' addresses.
	Underlay netip.Prefix
	// Containers holds their container subnets.
	Containers netip.Prefix
}

// IsZero reports whether f is none.
func (f Fan) IsZero() bool { return f == Fan{} }

// String names both prefixes, for messages.
func (f Fan) String() string { return fmt.Sprintf("%s in %s", f.Containers, f.Underlay) }

// HostBits is how many bits of an address tell hosts apart.
func (f Fan) HostBits() int { return 32 - f.Underlay.Bits() }

// SubnetBits is the length of a host's container subnet.
func (f Fan) SubnetBits() int { return f.Containers.Bits() + f.HostBits() }

// Node returns the host with an address. The host's name is that address. ok is false if
// the address is not in Underlay.
func (f Fan) Node(address netip.Addr) (n Node, ok bool) {
	if f.IsZero() || !f.Underlay.Contains(address) {
		return n, false
	}
	host := asNumber(address) & (1<<f.HostBits() - 1)
	subnet := fromNumber(asNumber(f.Containers.Addr()) | host<<(32-f.SubnetBits()))
	return Node{Name: address.String(), Address: address, Subnets: []netip.Prefix{netip.PrefixFrom(subnet, f.SubnetBits())}}, true
}

// Owner returns the host whose container subnet contains an address. ok is false if the
// address is not in Containers.
func (f Fan) Owner(container netip.Addr) (n Node, ok bool) {
	if f.IsZero() || !f.Containers.Contains(container) {
		return n, false
	}
	host := asNumber(container) >> (32 - f.SubnetBits()) & (1<<f.HostBits() - 1)
	return f.Node(fromNumber(asNumber(f.Underlay.Addr()) | host))
}

func asNumber(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func fromNumber(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// DecodeFan decodes the value of the key nodes that is no list. The error joins all
// problems; each wraps ErrInvalid.
func DecodeFan(raw []byte) (Fan, error) {
	var p problems
	f := p.fan("nodes", raw)
	return f, p.err()
}

// IsFan reports whether the value of the key nodes is a Fan and not a list.
func IsFan(raw json.RawMessage) bool {
	return bytes.HasPrefix(bytes.TrimLeft(raw, " \t\r\n"), []byte("{"))
}

func (p *problems) fan(key string, raw json.RawMessage) (f Fan) {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(raw, &fields) // IsFan has looked
	before := len(*p)
	for _, k := range sortedKeys(fields) {
		switch k {
		case "underlay":
			f.Underlay = p.fanPrefix(key+"."+k, fields[k])
		case "containers":
			f.Containers = p.fanPrefix(key+"."+k, fields[k])
		default:
			if p.noneOf(key + "." + k) {
				p.unknown(key+".", k, []string{"underlay", "containers"})
			}
		}
	}
	for _, k := range []string{"underlay", "containers"} {
		if fields[k] == nil {
			p.invalid(key+"."+k, nil, `missing: without a list, want {"underlay": "172.16.0.0/16", "containers": "10.0.0.0/8"}`)
		}
	}
	if len(*p) == before {
		p.checkFan(key, f)
	}
	if len(*p) > before {
		return Fan{}
	}
	return f
}

func (p *problems) fanPrefix(key string, raw json.RawMessage) netip.Prefix {
	s, err := decode[string](raw)
	if err != nil {
		p.invalid(key, raw, err.Error())
		return netip.Prefix{}
	}
	sub, ok := p.prefix(key, s)
	if !ok {
		return sub
	}
	if !sub.Addr().Is4() {
		p.invalid(key, quote(s), "want IPv4: an IPv6 address on the underlay does not fit into a container subnet")
		return sub
	}
	for _, no := range notForContainers {
		if sub.Overlaps(no) {
			p.invalid(key, quote(s), fmt.Sprintf("overlaps %s, which is for no host and no container", no))
			break
		}
	}
	return sub
}

// checkFan checks the two prefixes together.
func (p *problems) checkFan(key string, f Fan) {
	switch {
	case !isUnderlay(f.Underlay.Addr().Next()):
		p.invalid(key+".underlay", quote(f.Underlay.String()), "want plain unicast addresses of the underlay")
	case f.Underlay.Overlaps(f.Containers):
		p.invalid(key+".containers", quote(f.Containers.String()), fmt.Sprintf("overlaps %s, the underlay", f.Underlay))
	case f.HostBits() == 0:
		p.invalid(key+".underlay", quote(f.Underlay.String()), "has room for one host: want at most /31")
	case f.SubnetBits() > 30:
		p.invalid(key+".containers", quote(f.Containers.String()), fmt.Sprintf(
			"the %d bits of a host in %s make subnets of /%d, which are too small for a gateway and a container",
			f.HostBits(), f.Underlay, f.SubnetBits()))
	}
}
