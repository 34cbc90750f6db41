package chains

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// portmap publishes ports, as the conflists of the project have it.
var portmap = cnitest.Conf{"type": "portmap", "capabilities": cnitest.Conf{"portMappings": true}}

// published is what a runtime hands on for -p 8080:80.
const published = `CAP_ARGS={"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}`

// portmapLeaves is what portmap never takes away, as iptables shows its table
// nat: chains that all containers share. No container is named there.
const portmapLeaves = `:CNI-HOSTPORT-DNAT -
:CNI-HOSTPORT-MASQ -
:CNI-HOSTPORT-SETMARK -
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
`

// TestPortmap reaches a published port from everywhere, in every segment, by
// portmap's backend of iptables and of nftables, and finds no rule of it when
// the container is gone.
func TestPortmap(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"iptables", "nftables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			l := lab(t, cnitest.Network{})
			var before cnitest.Snapshot
			for _, segment := range []string{"host", "mesh", "container"} {
				t.Run(segment, func(t *testing.T) {
					publish(t, l, segment, backend)
					if before == nil {
						before = cnitest.MustLook(t, l.Hosts[0]) // what is shared is there from now on
					}
					unchanged(t, l.Hosts[0], before)
				})
			}
		})
	}
}

// publish has a container with a published port on the first host, and is over
// when it is gone.
func publish(t *testing.T, l *testnet.Lab, segment, backend string) {
	t.Helper()
	h := l.Hosts[0]
	chain := cnitest.Conf{"type": "portmap", "capabilities": portmap["capabilities"], "backend": backend}
	if backend == "nftables" && segment != "container" {
		// It masquerades nothing of a container beside, whose answers would come
		// by the bridge, past the host: docs/runtimes.md says so.
		chain["masqAll"] = true
	}
	cnitest.Network{Version: "1.0.0", OVSGRE: cnitest.Conf{"segment": segment, "ipMasq": true}, Chain: []cnitest.Conf{chain}}.Install(t, l)
	c := add(t, h, "ovsnet", "c1", published)
	near, far := add(t, h, "ovsnet", "near"), add(t, l.Hosts[1], "ovsnet", "far")
	serve(t, c, segment)
	c.check(t)
	for name, from := range map[string]testnet.Runner{
		"the peer host": l.Hosts[1], "the peer's container": far, "the world": l.Underlay,
		"the host itself": h, "a container beside": near, "the container itself": c,
	} {
		for _, addr := range []netip.Addr{h.Addr4, h.Addr6} {
			port := netip.AddrPortFrom(addr, 8080).String()
			testnet.Eventually(t, longest, func() error {
				if err := fetched(from, port, segment); err != nil {
					return fmt.Errorf("%s from %s: %w", port, name, err)
				}
				return nil
			})
		}
	}
	if err := fetched(h, "127.0.0.1:8080", segment); err != nil {
		t.Errorf("the host by its loopback: %v", err)
	}
	for _, c := range []*container{c, near, far} {
		c.del(t)
	}
	if backend == "nftables" {
		for _, family := range []string{"ip", "ip6"} {
			if left := h.Shell(t, "nft list table "+family+" cni_hostport"); strings.Contains(left, "dnat") {
				t.Errorf("rules of containers after DEL:\n%s", left)
			}
		}
		return
	}
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		if left := table(t, h, save, "nat"); left != portmapLeaves {
			t.Errorf("%s: table nat after DEL has:\n%swant\n%s", save, left, portmapLeaves)
		}
	}
}
