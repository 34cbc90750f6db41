package kernel

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
)

var pair = Veth{
	Name: "og0123456789abc", MAC: "0a:58:00:00:00:01", MTU: 1462, Alias: "ovs-gre:net/ctr/eth0",
	IfName: "eth0", IfMAC: "0a:58:c0:a8:01:02",
}

func TestAddVeth(t *testing.T) {
	ctx := inNetns(t)
	n := container(t)
	if err := AddVeth(ctx, pair, n); err != nil {
		t.Fatal(err)
	}
	if err := n.Configure(ctx, "eth0", prefixes("192.168.1.2/24", "fd00:1::2/64"), []ContainerRoute{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.168.1.1"), MTU: 1400, AdvMSS: 1300},
		{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00:1::1")},
		{Dst: netip.MustParsePrefix("10.0.0.0/8"), Priority: 7, Table: 300},
	}); err != nil {
		t.Fatal(err)
	}
	t.Log(ip(t, "-d addr show"))
	t.Log(ipIn(t, n, "-d addr show"))
	t.Log(ipIn(t, n, "route show table all"))
	l, err := n.Inspect(ctx, "eth0")
	t.Logf("%+v %v", l, err)
	h, err := LinkByName(ctx, pair.Name)
	t.Logf("%+v %v", h, err)
	t.Log(AddVeth(ctx, pair, n))
	other := pair
	other.Name = "og2"
	err = AddVeth(ctx, other, n)
	t.Log(err)
	if !errors.Is(err, ErrIfNameTaken) {
		t.Error(err)
	}
	if err := AddVeth(ctx, pair, n); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	_ = strings.TrimSpace
}
