package kernel

import (
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/state"

	"github.com/google/go-cmp/cmp"
)

var compare = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestAddrs(t *testing.T) {
	ctx := underlay(t)
	ip(t, "-6 addr add fd00:99::1/64 dev eth0 nodad")
	ip(t, "addr add 10.0.0.1 peer 10.0.0.2/30 dev obr0")
	mustEnsure(t, ctx, func() state.Set {
		s := state.Set{}
		s.Put(state.Addr{Dev: "obr0", Prefix: netip.MustParsePrefix("192.168.1.1/24")})
		return s
	}(), NewBackend(scope))
	list, err := Addrs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var have []Addr
	for _, a := range list {
		if i, err := LinkByName(ctx, a.Link); err != nil || i.Index != a.Index {
			t.Errorf("%+v: %v", a, err)
		}
		// The kernel itself says IFAPROT_KERNEL_LO (linux/if_addr.h) of lo's.
		a.Index, a.Proto = 0, a.Proto&^1
		have = append(have, a)
	}
	want := []Addr{
		{Link: "lo", Prefix: netip.MustParsePrefix("127.0.0.1/8")},
		{Link: "eth0", Prefix: netip.MustParsePrefix("172.30.0.1/24")},
		{Link: "obr0", Prefix: netip.MustParsePrefix("10.0.0.1/30")},
		{Link: "obr0", Prefix: netip.MustParsePrefix("192.168.1.1/24"), Proto: state.RouteProtocol &^ 1},
		{Link: "lo", Prefix: netip.MustParsePrefix("::1/128")},
		{Link: "eth0", Prefix: netip.MustParsePrefix("fd00:99::1/64")},
	}
	if d := cmp.Diff(want, have, compare); d != "" {
		t.Errorf("(-want +have):\n%s", d)
	}
	local, err := LocalAddrs(ctx)
	if err != nil || len(local) != len(list) || !slices.Contains(local, netip.MustParseAddr("172.30.0.1")) {
		t.Errorf("%v, %v", local, err)
	}
}

func TestLinks(t *testing.T) {
	ctx := underlay(t)
	for _, name := range []string{"none", "", strings.Repeat("x", 16)} {
		if _, err := LinkByName(ctx, name); !errors.Is(err, fs.ErrNotExist) || err.Error() != "link "+name+": no such link" {
			t.Errorf("%q: %v", name, err)
		}
	}
	for i, alias := range []string{"ovs-gre:net/a", "ovs-gre:other/a", "", "ovs-gre:net/b"} {
		name := "l" + string(rune('a'+i))
		ip(t, "tuntap add "+name+" mode tap")
		if alias != "" {
			ip(t, "link set "+name+" alias "+alias)
		}
	}
	list, err := LinksByAliasPrefix(ctx, "ovs-gre:net/")
	if err != nil || len(list) != 2 || list[0].Name != "la" || list[1].Alias != "ovs-gre:net/b" || list[1].Kind != "tun" {
		t.Errorf("%+v, %v", list, err)
	}
}

// More links than fit one answer.
func TestManyLinks(t *testing.T) {
	ctx := inNetns(t)
	n := container(t)
	for i := range 60 {
		v := pair
		v.Name, v.IfName = "h"+string(rune('a'+i/20))+string(rune('a'+i%20)), "c"+string(rune('a'+i/20))+string(rune('a'+i%20))
		v.MAC, v.IfMAC = "", ""
		if err := AddVeth(ctx, v, n); err != nil {
			t.Fatal(err)
		}
	}
	list, err := LinksByAliasPrefix(ctx, "ovs-gre:")
	if err != nil || len(list) != 60 {
		t.Errorf("%d links, %v", len(list), err)
	}
}

func TestConnected(t *testing.T) {
	ctx := underlay(t)
	ip(t, "addr add 10.0.0.1/32 dev eth0")
	ip(t, "-6 addr add fe80::1/64 dev eth0 nodad")
	ip(t, "addr add 172.30.0.9/24 dev eth0")
	ip(t, "-6 addr add fd00:99::1/64 dev eth0 nodad")
	ip(t, "addr add 192.168.1.1/24 dev obr0")
	ip(t, "addr add 10.1.0.1/24 dev obr0-t") // which is down
	ip(t, "link set obr0 up")
	list, err := Connected(ctx, "obr0", "none")
	if d := cmp.Diff(prefixes("172.30.0.0/24", "fd00:99::/64"), list, compare); d != "" || err != nil {
		t.Errorf("%v (-want +have):\n%s", err, d)
	}
	if list, err = Connected(ctx); len(list) != 3 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}
