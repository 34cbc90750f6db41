package kernel

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var pair = Veth{
	Name: "og0123456789abc", MAC: "0a:58:00:00:00:01", MTU: 1462, Alias: "ovs-gre:net/ctr/eth0",
	IfName: "eth0", IfMAC: "0a:58:c0:a8:01:02",
}

func TestAddVeth(t *testing.T) {
	ctx, n := withPair(t)
	if err := n.Configure(ctx, "eth0", nil, nil); err != nil {
		t.Fatal(err)
	}
	host, err := LinkByName(ctx, pair.Name)
	if err != nil {
		t.Fatal(err)
	}
	want := Link{Index: host.Index, Name: pair.Name, Kind: "veth", MAC: pair.MAC, Alias: pair.Alias, MTU: 1462, Up: true, LowerUp: true}
	if d := cmp.Diff(want, host); d != "" {
		t.Errorf("host end (-want +have):\n%s", d)
	}
	inside, err := n.Inspect(ctx, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	want = Link{Index: inside.Index, Name: "eth0", Kind: "veth", MAC: pair.IfMAC, MTU: 1462, Up: true, LowerUp: true}
	if d := cmp.Diff(want, inside.Link); d != "" {
		t.Errorf("container end (-want +have):\n%s", d)
	}
	if out := ip(t, "-o addr show dev "+pair.Name); out != "" {
		t.Errorf("the host end has addresses: %s", out)
	}
	if out := ip(t, "-d link show "+pair.Name); !strings.Contains(out, "addrgenmode none") {
		t.Errorf("the host end generates addresses: %s", out)
	}
}

func TestAddVethTinyMTU(t *testing.T) {
	ctx := inNetns(t)
	v := pair
	v.MTU = 1200 // less than IPv6 needs: the link has no IPv6 at all
	if err := AddVeth(ctx, v, container(t)); err != nil {
		t.Fatal(err)
	}
	l, err := LinkByName(ctx, v.Name)
	if err != nil || !l.Up || l.MTU != 1200 || l.Alias != v.Alias {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestAddVethTaken(t *testing.T) {
	ctx := inNetns(t)
	n := container(t)
	ip(t, "link add "+pair.Name+" type veth peer name other")
	before := ip(t, "-d -o link show "+pair.Name)
	err := AddVeth(ctx, pair, n)
	if !errors.Is(err, fs.ErrExist) || errors.Is(err, ErrIfNameTaken) {
		t.Errorf("the host's name: %v", err)
	}
	if d := cmp.Diff(before, ip(t, "-d -o link show "+pair.Name)); d != "" {
		t.Errorf("the other link changed:\n%s", d)
	}
	ip(t, "link del "+pair.Name)

	ipIn(t, n, "link add eth0 type veth peer name other")
	err = AddVeth(ctx, pair, n)
	if !errors.Is(err, ErrIfNameTaken) || errors.Is(err, fs.ErrExist) {
		t.Errorf("the container's name: %v", err)
	}
	if _, err := LinkByName(ctx, pair.Name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half of the pair is left: %v", err)
	}
	ipIn(t, n, "link del eth0")

	// A pair of ours that an ADD left when it was killed.
	if err := AddVeth(ctx, pair, n); err != nil {
		t.Fatal(err)
	}
	if err := AddVeth(ctx, pair, n); !errors.Is(err, fs.ErrExist) || errors.Is(err, ErrIfNameTaken) {
		t.Errorf("both names: %v", err)
	}
}

func TestAddVethUndoes(t *testing.T) {
	ctx := inNetns(t)
	n := container(t)
	v := pair
	v.Alias = strings.Repeat("a", 256) // IFALIASZ of linux/if.h
	if err := AddVeth(ctx, v, n); err == nil {
		t.Fatal("an alias of 256 bytes was taken")
	}
	if _, err := LinkByName(ctx, v.Name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pair is left: %v", err)
	}
}

func TestDelLink(t *testing.T) {
	ctx, n := withPair(t)
	for range 2 {
		if err := DelLink(ctx, pair.Name); err != nil {
			t.Error(err)
		}
	}
	if has, err := n.HasLink(ctx, "eth0"); has || err != nil {
		t.Errorf("the container's end: %t, %v", has, err)
	}
	if err := AddVeth(ctx, pair, n); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.with(func(c *conn) error { return c.delLink(ctx, "eth0") }); err != nil {
			t.Error(err)
		}
	}
	if _, err := LinkByName(ctx, pair.Name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the host's end: %v", err)
	}
	if err := DelLink(ctx, "lo"); err == nil || !strings.Contains(err.Error(), "link lo: delete: operation not supported") {
		t.Errorf("lo: %v", err)
	}
}

func TestQuietHostEnd(t *testing.T) {
	ctx := inNetns(t)
	if err := AddVeth(ctx, pair, container(t)); err != nil {
		t.Fatal(err)
	}
	if err := QuietHostEnd(pair.Name); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"ipv4/conf/" + pair.Name + "/arp_ignore": "8\n", "ipv6/conf/" + pair.Name + "/disable_ipv6": "1\n"} {
		if b, err := os.ReadFile("/proc/sys/net/" + key); string(b) != want {
			t.Errorf("%s: %q, %v", key, b, err)
		}
	}
	if err := QuietHostEnd("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no link: %v", err)
	}
}

func TestOpenNetns(t *testing.T) {
	inNetns(t)
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "none"): fs.ErrNotExist,
		file:                       ErrNotNetns,
		fifo:                       ErrNotNetns,
		dir:                        ErrNotNetns,
		"/proc/self/ns/uts":        ErrNotNetns,
		"/proc/self/status":        ErrNotNetns,
	} {
		n, err := OpenNetns(path)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if err == nil {
			n.Close()
		}
	}
	own, err := OpenNetns("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if is, err := own.IsHost(); !is || err != nil {
		t.Errorf("own namespace: %t, %v", is, err)
	}
	if is, err := container(t).IsHost(); is || err != nil {
		t.Errorf("another namespace: %t, %v", is, err)
	}
}

func TestConfigure(t *testing.T) {
	ctx, n := withPair(t)
	addrs := prefixes("192.168.1.2/24", "fd00:1::2/64")
	routes := []ContainerRoute{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.168.1.1"), MTU: 1400, AdvMSS: 1300},
		{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00:1::1"), Priority: 1024},
		{Dst: netip.MustParsePrefix("10.0.0.1/8"), Priority: 7, Table: 300},
		{Dst: netip.MustParsePrefix("10.1.0.0/16"), Via: netip.MustParseAddr("172.30.0.1"), Onlink: true, Table: 254},
		{Dst: netip.MustParsePrefix("10.2.0.0/16"), Via: netip.MustParseAddr("192.168.1.3"), Scope: 200},
	}
	for range 2 { // it is idempotent
		if err := n.Configure(ctx, "eth0", addrs, routes); err != nil {
			t.Fatal(err)
		}
	}
	l, err := n.Inspect(ctx, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if !hasRoute(l, r) {
			t.Errorf("no route %s in %+v", r, l.Routes)
		}
	}
	if hasRoute(l, ContainerRoute{Dst: routes[0].Dst, Via: routes[0].Via}) {
		t.Error("a route without its MTU is not the same")
	}
	want := `10.0.0.0/8 dev eth0 table 300 scope link metric 7
default via 192.168.1.1 dev eth0 mtu 1400 advmss 1300
10.1.0.0/16 via 172.30.0.1 dev eth0 onlink
10.2.0.0/16 via 192.168.1.3 dev eth0 scope site
192.168.1.0/24 dev eth0 proto kernel scope link src 192.168.1.2
default via fd00:1::1 dev eth0 metric 1024 pref medium
`
	have := ""
	for line := range strings.Lines(ipIn(t, n, "route show table all")) {
		if !strings.Contains(line, "table local") && !strings.HasPrefix(line, "fe80") && !strings.HasPrefix(line, "fd00") {
			have += strings.Replace(strings.TrimRight(line, " \n"), "scope 200", "scope site", 1) + "\n"
		}
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("routes (-want +have):\n%s", d)
	}
	if out := ipIn(t, n, "-6 -o addr show dev eth0 scope global"); !strings.Contains(out, "nodad") || strings.Contains(out, "tentative") {
		t.Errorf("IPv6 address: %s", out)
	}
}

// A /32 has no neighbours: the gateway needs a route of its own, wherever in
// the list it stands.
func TestConfigureSingle(t *testing.T) {
	ctx, n := withPair(t)
	err := n.Configure(ctx, "eth0", prefixes("192.168.1.2/32", "fd00:1::2/128"), []ContainerRoute{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.168.1.1")},
		{Dst: netip.MustParsePrefix("192.168.1.1/32")},
		{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00:1::1")},
		{Dst: netip.MustParsePrefix("fd00:1::1/128")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{
		"8.8.8.8":     "8.8.8.8 via 192.168.1.1 dev eth0 src 192.168.1.2",
		"192.168.1.1": "192.168.1.1 dev eth0 src 192.168.1.2",
		"fd00:9::1":   "fd00:9::1 from :: via fd00:1::1 dev eth0 src fd00:1::2",
	} {
		if out := ipIn(t, n, "route get "+to); !strings.HasPrefix(out, want) {
			t.Errorf("to %s: %s", to, out)
		}
	}
}

func TestConfigureErrors(t *testing.T) {
	ctx := inNetns(t)
	n := container(t)
	if err := n.Configure(ctx, "eth0", nil, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no link: %v", err)
	}
	if _, err := n.Inspect(ctx, "eth0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no link to inspect: %v", err)
	}
	if err := AddVeth(ctx, pair, n); err != nil {
		t.Fatal(err)
	}
	ok := []ContainerRoute{
		{Dst: netip.MustParsePrefix("10.0.0.0/8"), Via: netip.MustParseAddr("192.168.1.1")},
		// The kernel has made it for the address.
		{Dst: netip.MustParsePrefix("192.168.1.0/24")},
	}
	if err := n.Configure(ctx, "eth0", prefixes("192.168.1.2/24"), ok); err != nil {
		t.Fatal(err)
	}
	err := n.Configure(ctx, "eth0", prefixes("fd00:1::2/64"), []ContainerRoute{
		{Dst: netip.MustParsePrefix("10.0.0.0/8"), Via: netip.MustParseAddr("192.168.1.9")},
		{Dst: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.77.0.1")},
		{Dst: netip.MustParsePrefix("10.10.0.0/16"), Via: netip.MustParseAddr("192.168.1.1")},
	})
	want := `interface eth0: route 10.0.0.0/8 via 192.168.1.9: file exists: 10.0.0.0/8 via 192.168.1.1 dev eth0 proto boot
route 10.9.0.0/16 via 10.77.0.1: network is unreachable (Nexthop has invalid gateway)`
	if err == nil || err.Error() != want || !errors.Is(err, fs.ErrExist) || !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("have %v\nwant %s", err, want)
	}
	if l, _ := n.Inspect(ctx, "eth0"); !hasRoute(l, ContainerRoute{Dst: netip.MustParsePrefix("10.10.0.0/16"), Via: netip.MustParseAddr("192.168.1.1")}) {
		t.Error("the rest was not done")
	}
	err = n.Configure(ctx, "eth0", prefixes("fd00:1::2/128"), nil)
	if err == nil || !strings.Contains(err.Error(), "address fd00:1::2/128: file exists: the link has it as fd00:1::2/64") {
		t.Errorf("another prefix length: %v", err)
	}
}

func TestConfigureEnablesIPv6(t *testing.T) {
	ctx := inNetns(t)
	n := container(t)
	if err := n.Do(func() error { return writeSysctl("net/ipv6/conf/default/disable_ipv6", "1") }); err != nil {
		t.Fatal(err)
	}
	if err := AddVeth(ctx, pair, n); err != nil {
		t.Fatal(err)
	}
	if err := n.Configure(ctx, "eth0", prefixes("192.168.1.2/24"), nil); err != nil {
		t.Fatal(err)
	}
	if l, _ := n.Inspect(ctx, "eth0"); len(l.Addrs) != 1 {
		t.Errorf("IPv6 where nobody asked for it: %v", l.Addrs)
	}
	def := ContainerRoute{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00:1::1")}
	if err := n.Configure(ctx, "eth0", prefixes("192.168.1.2/24", "fd00:1::2/64"), []ContainerRoute{def}); err != nil {
		t.Fatal(err)
	}
	if l, _ := n.Inspect(ctx, "eth0"); !hasRoute(l, def) {
		t.Errorf("no default route: %+v", l)
	}
}

func TestDisableTxChecksum(t *testing.T) {
	_, n := withPair(t)
	on := func() (v ethtoolValue) {
		t.Helper()
		v.cmd = unix.ETHTOOL_GTXCSUM
		if err := n.with(func(*conn) error { return ethtool(n.conn.sockets[unix.NETLINK_ROUTE].Socket.GetFd(), "eth0", &v) }); err != nil {
			t.Fatal(err)
		}
		return v
	}
	if on().data == 0 {
		t.Fatal("a fresh veth computes its own checksums")
	}
	if err := n.DisableTxChecksum("eth0"); err != nil {
		t.Fatal(err)
	}
	if on().data != 0 {
		t.Error("tx checksum offload is still on")
	}
	if err := n.DisableTxChecksum("none"); err == nil {
		t.Error("no error about a link that is not there")
	}
}

// hasRoute reports whether a route that Configure was asked for is there.
func hasRoute(l ContainerLink, r ContainerRoute) bool {
	return slices.Contains(l.Routes, r.canonical())
}

func TestVethPeer(t *testing.T) {
	ctx, n := withPair(t)
	if err := n.Configure(ctx, "eth0", prefixes("192.168.1.2/24", "fd00:1::2/64"), nil); err != nil {
		t.Fatal(err)
	}
	ipIn(t, n, "addr add 10.9.0.1 peer 10.9.0.2/31 dev eth0")
	ipIn(t, n, "addr add 10.8.0.1/24 dev lo")
	have, err := VethPeerOf(ctx, pair.Name)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(have.Addrs, netip.Addr.Compare)
	want := VethPeer{MAC: pair.IfMAC, MTU: pair.MTU, Addrs: addresses("10.9.0.1", "192.168.1.2", "fd00:1::2")}
	if d := cmp.Diff(want, have, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("(-want +have):\n%s", d)
	}
	if _, err := VethPeerOf(ctx, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link that is not there: %v", err)
	}
	if _, err := VethPeerOf(ctx, "lo"); err == nil {
		t.Error("no error about a link without other end")
	}
}
