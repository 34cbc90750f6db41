package routes

import (
	"net/netip"
	"testing"

	"ovs-gre-cni/pkg/kernel"
)

// The links that accepts of direct routes name, as addresses tell.
func TestLinks(t *testing.T) {
	addrs := func(list ...[2]string) (out []kernel.Addr) {
		for _, a := range list {
			out = append(out, kernel.Addr{Link: a[0], Prefix: netip.MustParsePrefix(a[1])})
		}
		return out
	}
	subnet, self := netip.MustParsePrefix("10.1.0.0/24"), netip.MustParseAddr("172.16.0.1")
	for _, tt := range []struct {
		name              string
		addrs             []kernel.Addr
		gateway, underlay string
	}{
		{"nothing", nil, "", ""},
		{"bridge", addrs([2]string{"eth0", "172.16.0.1/24"}, [2]string{"cni0", "10.1.0.1/24"}), "cni0", "eth0"},
		{"Docker with a wider mask", addrs([2]string{"eth0", "172.16.0.1/24"}, [2]string{"docker0", "10.1.0.1/16"}), "docker0", "eth0"},
		{"the gateway before another address", addrs([2]string{"br1", "10.1.0.9/24"}, [2]string{"br0", "10.1.0.1/24"}, [2]string{"br2", "10.1.0.7/24"}), "br0", ""},
		{"an address that is not the gateway's", addrs([2]string{"br1", "10.1.0.9/24"}), "br1", ""},
		{"ptp: a link a container", addrs([2]string{"veth1", "10.1.0.1/32"}, [2]string{"veth2", "10.1.0.1/32"}), "", ""},
		{"the transit link beside the gateway's", addrs([2]string{"obr0-t", "10.1.0.1/32"}, [2]string{"obr0", "10.1.0.1/24"}), "obr0", ""},
		{"an address that no link brings packets to", addrs([2]string{"lo", "172.16.0.1/32"}, [2]string{"obr0", "10.1.0.1/24"}), "obr0", ""},
	} {
		if got := gatewayLink(subnet, tt.addrs); got != tt.gateway {
			t.Errorf("%s: gateway link %q, want %q", tt.name, got, tt.gateway)
		}
		if got := underlayLink(self, tt.addrs); got != tt.underlay {
			t.Errorf("%s: underlay link %q, want %q", tt.name, got, tt.underlay)
		}
	}
}
