package state

import (
	"fmt"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// MTU returns the MTU of containers' links: that of the configuration or, where it has
// none, underlay less the encapsulation. underlay is the least MTU on the paths to the
// peers. The error, about a value that does not fit, wraps config.ErrInvalid.
func MTU(c *config.Network, m nodes.Topology, underlay int) (int, error) {
	over := Overhead(c.Tunnel, m.Self.Address.Is6())
	fits := underlay - over
	mtu := c.MTU
	if mtu == 0 {
		mtu = fits
	}
	if mtu > fits {
		return 0, fmt.Errorf("%w: mtu %d: does not fit: the underlay's MTU is %d and the tunnel (%s) takes %d, so at most %d",
			config.ErrInvalid, mtu, underlay, c.Tunnel.Type, over, fits)
	}
	// RFC 791: every link takes 68 bytes. RFC 8200, section 5: IPv6 needs 1280.
	least, what := 68, "IPv4"
	for _, s := range m.Self.Subnets {
		if s.Addr().Is6() {
			least, what = 1280, fmt.Sprintf("IPv6 (subnet %s)", s)
		}
	}
	if mtu < least {
		return 0, fmt.Errorf("%w: mtu %d: less than the %d that %s needs: the underlay's MTU is %d and the tunnel (%s) takes %d",
			config.ErrInvalid, mtu, least, what, underlay, c.Tunnel.Type, over)
	}
	return mtu, nil
}

// Overhead returns the bytes that a tunnel adds to an inner IP packet; underlay6 says
// that the outer packet is IPv6.
func Overhead(t config.Tunnel, underlay6 bool) int {
	const (
		ipv4, ipv6Extra = 20, 20  // RFC 791; RFC 8200 less it
		ethernet        = 14      // the inner frame's header
		gre, greField   = 4, 4    // RFC 2784; key and checksum each, RFC 2890
		udp, vni        = 8, 8    // RFC 768; VXLAN RFC 7348, Geneve RFC 8926 without options
		wireGuard       = 16 + 16 // a data message's header and Poly1305 tag (whitepaper, 5.4.6)
		// ESP in transport mode with AES-GCM: SPI and sequence number, IV, at most 3
		// bytes of padding, its length and the next header, ICV (RFC 4303, RFC 4106).
		ipsec = 8 + 8 + 3 + 2 + 16
	)
	var n int
	switch t.Type {
	case config.TunnelGRE:
		n = ipv4 + gre + ethernet
		if t.Key != nil {
			n += greField
		}
		if t.Csum {
			n += greField
		}
	case config.TunnelVXLAN, config.TunnelGeneve:
		n = ipv4 + udp + vni + ethernet
	case config.TunnelWireGuard:
		n = ipv4 + udp + wireGuard
	default:
		return 0
	}
	if t.IPsec() != "" {
		n += ipsec
	}
	if underlay6 {
		n += ipv6Extra
	}
	return n
}
