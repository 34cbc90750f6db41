package config

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Names are derived and never stored: from the names of the network and the container
// follow the names of all its objects. Kernel link names have at most 15 bytes
// (IFNAMSIZ in linux/if.h).

// PortName returns the name of the host's end of a container's veth pair, which is
// also the name of its OVS port: "og" and 52 bits of a hash.
func PortName(network, containerID, ifName string) string {
	return "og" + hash13(network, containerID, ifName)
}

// Alias returns the ifalias of the host's end of a container's veth pair. It names the
// attachment, so that its lease and OVS port can be restored from the link.
func Alias(network, containerID, ifName string) string {
	return AliasPrefix(network) + containerID + " " + ifName
}

// AliasBegin is the common prefix of the aliases of all networks' links.
const AliasBegin = "ovs-gre "

// MaxAlias is the most bytes that the kernel keeps of an alias (IFALIASZ in
// linux/if.h).
const MaxAlias = 255

// maxAliasedName leaves room behind it for a container's id as all runtimes make
// them, of 64 characters, and an interface's name of 15.
const maxAliasedName = MaxAlias - len(AliasBegin) - len(" ") - 64 - len(" ") - 15

// AliasPrefix returns the common prefix of the aliases of a network's links. A long name
// is cut and followed by '~', which no name contains, and a hash of the whole name.
func AliasPrefix(network string) string {
	if len(network) > maxAliasedName {
		network = network[:maxAliasedName-14] + "~" + hash13(network)
	}
	return AliasBegin + network + " "
}

// ParseAlias returns the attachment that the alias of a link names, and PortName of it;
// a link that somebody renamed has another name. ok is false where the alias is not of
// this network, or where link is the port name of another attachment.
func ParseAlias(network, link, alias string) (a Attachment, port string, ok bool) {
	owner, ours := strings.CutPrefix(alias, AliasPrefix(network))
	f := strings.Fields(owner)
	if !ours || len(f) != 2 {
		return Attachment{}, "", false
	}
	port = PortName(network, f[0], f[1])
	return Attachment{f[0], f[1]}, port, link == port || !IsPortName(link)
}

// IsPortName reports whether a name can be one that PortName returns.
func IsPortName(name string) bool {
	hash, ok := strings.CutPrefix(name, "og")
	return ok && len(hash) == 13 && strings.Trim(hash, "0123456789abcdef") == ""
}

// TunnelName returns the name of the network's tunnel port to the node with this address.
func TunnelName(network string, address netip.Addr) string {
	return "ot" + hash13(network, address.String())
}

// OneTunnelName names the OVS tunnel port of network that all nodes share.
func OneTunnelName(network string) string { return "ot" + hash13(network, "") }

// TransitLink names the OVS bridge that has the tunnels of the network whose
// containers are on bridge, and its internal port, the transit link, by which
// this host reaches its peers' hosts.
func TransitLink(bridge string) string { return bridge + "-t" }

// WireGuardName names the WireGuard link of the network whose containers are on
// bridge.
func WireGuardName(bridge string) string { return bridge + "-w" }

// WireGuardAlias is the ifalias of a network's WireGuard link: it says whose the
// link is, and is not to be taken for that of a container's.
func WireGuardAlias(network string) string { return FirewallTable(network) }

// KeyDir holds the private keys of this host, a file for each encrypted network.
// It is on disk: peers know the host by its key, also after a reboot.
const KeyDir = "/var/lib/ovs-gre"

// KeyFile is the file with this host's private key for a network.
func KeyFile(network string) string { return KeyDir + "/" + network + ".key" }

// GuardName names the nftables table by which nothing of an encrypted network
// passes in clear. No network's name has a slash.
func GuardName(network string) string { return FirewallTable(network) + "/guard" }

// FirewallTable names the nftables table of a network.
func FirewallTable(network string) string { return "ovs-gre-" + network }

func hash13(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:13]
}

// MAC returns the MAC address that is derived from an IP address: 0a:58 and the four
// bytes of an IPv4 address (as in containernetworking/plugins and ovn-kubernetes), or
// four bytes of a hash of an IPv6 address. So every host knows its peers' MAC
// addresses without ARP.
func MAC(a netip.Addr) string {
	b := macBytes(a)
	return net.HardwareAddr(append([]byte{0x0a, 0x58}, b[:]...)).String()
}

// macBytes are the last four bytes of MAC.
func macBytes(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	sum := sha256.Sum256(a.AsSlice())
	return [4]byte(sum[:4])
}

// AnyPeerMAC is the Ethernet destination of what is for some peer, where OVS
// finds out by the packet for which one. It is no address's MAC.
const AnyPeerMAC = "0a:59:00:00:00:00"

// AnyPeer4 is the IPv4 next hop that has AnyPeerMAC; for IPv6 packets it is
// LinkLocal(AnyPeerMAC). It is link-local (RFC 3927), valid on one link alone.
var AnyPeer4 = netip.AddrFrom4([4]byte{169, 254, 121, 1})

// LinkLocal is the IPv6 link-local address of a MAC address by modified
// EUI-64 (RFC 4291, appendix A). It is invalid for what is not a MAC address.
func LinkLocal(mac string) netip.Addr {
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != 6 {
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// Gateway returns the first address of a subnet, which its node has.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// isNetworkName accepts what libcni does (ValidateNetworkName in its pkg/utils),
// which keeps a name from being a path.
func isNetworkName(s string) bool {
	return s != "" && len(s) <= maxNetworkName && only(s[:1], "") && only(s, "_.-")
}

// only reports whether a text has no characters but ASCII letters, digits and
// those of others. A regular expression would be compiled at each start of a
// plugin.
func only(s, others string) bool {
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.ContainsRune(others, c) {
			return false
		}
	}
	return true
}

// maxNetworkName is the most bytes of a network's name. It leaves room in the file
// name and the name of the nftables table, of 255 bytes each, that contain it.
const maxNetworkName = 200

var wantName = fmt.Sprintf("want a network name of letters, digits, '_', '.', '-', at most %d, the first a letter or digit", maxNetworkName)

// CheckName tells what is wrong with the name of a network. The error wraps
// ErrInvalid.
func CheckName(name string) error {
	if isNetworkName(name) {
		return nil
	}
	return &Problem{Key: "name", Value: string(quote(name)), Reason: wantName}
}

// isLinkName keeps to what no shell, ovs-vsctl or sysctl takes for anything
// else.
func isLinkName(s string) bool { return s != "" && only(s[:1], "_.") && only(s, "_.+-") }

// reservedLinkNames are directories of the file system or of net.ipv4.conf; the kernel
// refuses them as names of links.
var reservedLinkNames = []string{".", "..", "all", "default"}
