package rundir_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/rundir"
)

func TestCondensed(t *testing.T) {
	d := rundir.NetworkDir(fmt.Sprintf("test-condensed-%d", os.Getpid()))
	t.Cleanup(func() { _ = d.Remove() })
	list := make([]config.Node, 300)
	for i := range list {
		list[i] = config.Node{
			Name: fmt.Sprintf("host%d", i), Address: netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}),
			Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
		}
	}
	if _, ok := d.Condensed(); ok {
		t.Error("nothing is saved, and there is something")
	}
	if err := d.Save(list, "host0", nil); err != nil {
		t.Fatal(err)
	}
	m, ok := d.Condensed()
	// 10.0.1.0/24 to 10.1.43.0/24 without this host's 10.0.0.0/24.
	want := "[10.0.1.0/24 10.0.2.0/23 10.0.4.0/22 10.0.8.0/21 10.0.16.0/20 10.0.32.0/19 10.0.64.0/18 10.0.128.0/17 10.1.0.0/19 10.1.32.0/21 10.1.40.0/22]"
	if !ok || m.Self.String() != list[0].String() || len(m.Peers) != 1 || fmt.Sprint(m.Peers[0].Subnets) != want {
		t.Errorf("%v, %t, want the subnets %s", m, ok, want)
	}
	file := filepath.Join(string(d), "nodes.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(raw, ' '), 0o644); err != nil {
		t.Fatal(err)
	}
	if m, ok := d.Condensed(); ok {
		t.Errorf("the list is another, and there is %v", m)
	}
	for _, n := range []int{299, 3} { // the file of many is there yet
		if err := d.Save(list[:n], "host0", nil); err != nil {
			t.Fatal(err)
		}
		if m, ok := d.Condensed(); ok != (n == 299) {
			t.Errorf("%d nodes: %v, %t", n, m, ok)
		}
	}
}
