package config_test

import (
	"net/netip"
	"testing"

	"ovs-gre-cni/pkg/config"
)

// TestFan: a host has the container subnet that its address says, and only that host.
func TestFan(t *testing.T) {
	for _, tc := range []struct{ underlay, containers, address, subnet string }{
		{"172.16.0.0/16", "10.0.0.0/8", "172.16.3.7", "10.3.7.0/24"},
		{"172.16.0.0/16", "10.0.0.0/8", "172.16.255.255", "10.255.255.0/24"},
		{"172.16.0.0/16", "10.0.0.0/8", "172.16.0.0", "10.0.0.0/24"},
		{"192.168.7.0/24", "10.64.0.0/16", "192.168.7.200", "10.64.200.0/24"},
		{"192.168.7.0/24", "10.64.0.0/14", "192.168.7.129", "10.66.4.0/22"},
		{"10.128.0.0/9", "100.64.0.0/3", "10.129.2.3", "96.64.128.192/26"},
		{"172.16.32.0/31", "10.0.0.0/8", "172.16.32.1", "10.128.0.0/9"},
		{"172.16.0.0/16", "10.0.0.0/14", "172.16.3.7", "10.0.12.28/30"},
	} {
		f := config.Fan{Underlay: netip.MustParsePrefix(tc.underlay), Containers: netip.MustParsePrefix(tc.containers).Masked()}
		address, subnet := netip.MustParseAddr(tc.address), netip.MustParsePrefix(tc.subnet)
		n, ok := f.Node(address)
		if !ok || n.Address != address || n.Name != tc.address || len(n.Subnets) != 1 || n.Subnets[0] != subnet {
			t.Errorf("%s: %s has %v %t, want %s", f, address, n.Subnets, ok, subnet)
		}
		for _, a := range []netip.Addr{subnet.Addr(), subnet.Addr().Next().Next()} {
			if n, ok := f.Owner(a); !ok || n.Address != address || n.Subnets[0] != subnet {
				t.Errorf("%s: %s is of %s %t, want %s", f, a, n.Address, ok, address)
			}
		}
		for _, a := range []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("fd00::1"), {}} {
			if n, ok := f.Node(a); ok {
				t.Errorf("%s: %s is %v", f, a, n)
			}
			if n, ok := f.Owner(a); ok {
				t.Errorf("%s: %s is of %v", f, a, n)
			}
		}
	}
	if n, ok := (config.Fan{}).Node(netip.MustParseAddr("172.16.3.7")); ok {
		t.Errorf("the zero Fan has %v", n)
	}
}
