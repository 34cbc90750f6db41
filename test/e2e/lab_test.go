package e2e

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// snapshotScript prints what a host has: links, addresses, routes, permanent
// neighbours, filter rules, OVSDB's rows, and the files of plugins and runtime.
// It leaves out what changes by itself (counters, cur_cfg), what the datapath
// keeps once it was used, the anycast addresses that go with IPv6 forwarding,
// which stays on, the carrier, which lags behind, and host-local's lock and memory of the last address.
const snapshotScript = calm + `
links='^[0-9]*: \(ovs-\|gre\|erspan\|ip6gre\|ip6tnl\|sit\|tunl\)'
echo == links; ip -o link | grep -v "$links" | calm
echo == addresses; ip -o address | grep -v "$links" | calm
echo == routes; ip route show table all | grep -v '^anycast' | calm
echo == neighbours; ip neigh show nud permanent | sed 's/\( lladdr [^ ]*\)*\( managed extern_learn\).*/\2/' | sort
echo == nftables; nft --stateless list ruleset
if [ -S /run/openvswitch/db.sock ]; then
	dump() { echo "== $1"; ovsdb-client --timeout=30 --format=list dump unix:/run/openvswitch/db.sock Open_vSwitch "$@"; }
	dump Open_vSwitch bridges external_ids other_config
	dump Bridge _uuid name ports datapath_type fail_mode other_config external_ids protocols controller mirrors
	dump Port _uuid name tag vlan_mode trunks protected interfaces other_config external_ids
	dump Interface _uuid name type options mac mtu_request bfd ofport error external_ids
fi
echo == files
find /run/ovs-gre ! \( -type d -empty -name routes \) 2>/dev/null | sort
find /run/ovs-gre /var/lib/cni -type f ! -name lock ! -name 'last_reserved_ip*' 2>/dev/null | sort | while read -r f; do echo "$f: $(cat "$f")"; done
`

// calm is a filter that takes the carrier out of what ip prints, and the
// state of an IPv6 address that the kernel is still looking at.
const calm = `
calm() { sed 's/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]*//; s/ linkdown//; s/ tentative//'; }
`

func snapshot(t testing.TB, h *testnet.Host) string {
	t.Helper()
	return h.Run(t, "sh", "-c", snapshotScript)
}

// unchanged compares the host with a snapshot of it.
func unchanged(t testing.TB, h *testnet.Host, before string) {
	t.Helper()
	if d := diff(before, snapshot(t, h)); d != "" {
		t.Errorf("%s is not as it was:\n%s", h.Name, d)
	}
}

// diff is what two texts differ in, line by line; "" is nothing.
func diff(before, after string) string {
	return cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n"))
}

// What the suites share.
var (
	wantError = cnitest.WantError
	call      = cnitest.Call
	result    = cnitest.Result
)

// id is the container ID that cnitool makes of a namespace's path.
func id(c *cnitest.Container) string { return c.ID() }

// port is the OVS port of a container, which is also the host's end of its veth pair.
func port(c *cnitest.Container) string { return c.Port() }

// check calls CHECK of one plugin with the result of the container's ADD.
func check(t testing.TB, c *cnitest.Container, conflist, plugin string) error {
	t.Helper()
	conf := cnitest.PluginConf(t, conflist, plugin, cnitest.Conf{"prevResult": c.Result})
	_, err := call(c.Netns, plugin, "CHECK", conf, "CNI_CONTAINERID="+id(c), "CNI_IFNAME="+c.IfName)
	return err
}

// del detaches a container and deletes its namespace.
func del(t testing.TB, c *cnitest.Container) {
	t.Helper()
	if err := c.Call("del"); err != nil {
		t.Fatalf("%s: cnitool del %s %s: %v", c.Host.Name, c.Network, c.Path, err)
	}
	c.Delete(t)
}

// underlayAddr is the underlay address of a host that a network uses.
func underlayAddr(h *testnet.Host, v6 bool) netip.Addr {
	if v6 {
		return h.Addr6
	}
	return h.Addr4
}

// gateway is the gateway address of host i's containers.
func gateway(i int, v6 bool) netip.Addr {
	subnets := cnitest.Subnets(i)
	s := subnets[0]
	if v6 {
		s = subnets[1]
	}
	return config.Gateway(netip.MustParsePrefix(s))
}
