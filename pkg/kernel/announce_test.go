package kernel

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// frames reads what comes in by a link until want frames of the container are
// there or nothing comes any more.
func frames(t *testing.T, link string, send func()) []string {
	t.Helper()
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	l, err := LinkByName(t.Context(), link)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Index}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300000}); err != nil {
		t.Fatal(err)
	}
	send()
	var seen []string
	for b := make([]byte, 2000); ; {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return seen
		}
		seen = append(seen, hex.EncodeToString(b[:n]))
	}
}

const (
	// Broadcast of a request whose sender and target are 192.168.1.2.
	arp = "ffffffffffff" + "0a58c0a80102" + "0806" + "0001080006040001" + "0a58c0a80102" + "c0a80102" + "000000000000" + "c0a80102"
	// From fd00:1::2 to ff02::1, hop limit 255, override, target's address.
	na = "333300000001" + "0a58c0a80102" + "86dd" + "60000000" + "0020" + "3aff" +
		"fd000001000000000000000000000002" + "ff020000000000000000000000000001" +
		"8800" + "9095" + "20000000" + "fd000001000000000000000000000002" + "0201" + "0a58c0a80102"
)

func TestAnnounce(t *testing.T) {
	for _, c := range []struct {
		name    string
		addrs   []netip.Addr
		arp, na bool
	}{
		{"both", addresses("192.168.1.2", "fd00:1::2"), true, true},
		{"IPv4", addresses("192.168.1.2"), true, false},
		{"IPv6", addresses("fd00:1::2"), false, true},
		{"none", nil, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, n := withPair(t)
			if err := n.Configure(ctx, "eth0", prefixes("192.168.1.2/24", "fd00:1::2/64"), nil); err != nil {
				t.Fatal(err)
			}
			seen := frames(t, pair.Name, func() {
				if err := n.Announce("eth0", pair.IfMAC, c.addrs); err != nil {
					t.Error(err)
				}
			})
			if slices.Contains(seen, arp) != c.arp || slices.Contains(seen, na) != c.na {
				t.Errorf("frames:\n%q", seen)
			}
			if l, err := n.Inspect(ctx, "eth0"); err != nil || l.MAC != pair.IfMAC || len(l.Addrs) < 2 {
				t.Errorf("the link changed: %+v, %v", l, err)
			}
		})
	}
}
