// Package recipes walks through the recipes that this project began as, with a
// real Docker Engine on simulated hosts, and runs every conflist that it ships.
package recipes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// confPath is where a lab's hosts have their conflist.
const confPath = "/etc/cni/net.d/10-ovsnet.conflist"

// examplePath is where the project's own conflists are.
func examplePath(t testing.TB, name string) string {
	t.Helper()
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "conflist", name)
}

// edit changes the configuration of the plugins in a conflist.
func edit(t testing.TB, conflist string, f func(plugin map[string]any)) string {
	t.Helper()
	var list map[string]any
	if err := json.Unmarshal([]byte(conflist), &list); err != nil {
		t.Fatal(err)
	}
	plugins, ok := list["plugins"].([]any)
	if !ok {
		t.Fatalf("no plugins in %s", conflist)
	}
	for _, p := range plugins {
		p, ok := p.(map[string]any)
		if !ok {
			t.Fatalf("a plugin is no object in %s", conflist)
		}
		f(p)
	}
	raw, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// onDatapath is a conflist with the datapath that the lab's hosts have, where
// it is not OVS's own choice.
func onDatapath(t testing.TB, l *testnet.Lab, conflist string) string {
	t.Helper()
	if l.Datapath != testnet.DatapathNetdev {
		return conflist
	}
	return edit(t, conflist, func(p map[string]any) {
		if p["type"] == "ovs-gre" {
			p["datapathType"] = testnet.DatapathNetdev
		}
	})
}

// reach pings and wants an answer. A busy machine may take its time.
func reach(t testing.TB, what string, from testnet.Runner, to netip.Addr) {
	t.Helper()
	if err := testnet.Ping(context.Background(), from, to, testnet.PingOptions{Wait: 10 * time.Second}); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// snapshotScript prints what a host has, but for counters, carriers, what the
// datapath keeps once it was used, and the anycast addresses and switches that
// go with forwarding, which stays on.
const snapshotScript = `
calm() { sed 's/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]*//; s/ linkdown//; s/ tentative//'; }
links='^[0-9]*: \(ovs-\|gre\|erspan\|ip6gre\|ip6tnl\|sit\|tunl\|genev_sys\|vxlan_sys\)'
echo == links; ip -o link | grep -v "$links" | calm
# A Linux bridge gets its link-local address with its first port, and keeps it.
own() { grep -v -E '(fe80|ff00):.* dev (docker0|bridge0|br0) |: (docker0|bridge0|br0) +inet6 fe80:'; }
echo == addresses; ip -o address | grep -v "$links" | own | sed 's/valid_lft.*//' | calm
echo == routes; ip -4 route show table all | calm; ip -6 route show table all | grep -v '^anycast' | own | sed 's/ expires [0-9]*sec//' | calm
echo == rules; ip rule; ip -6 rule
echo == neighbours; ip neigh show nud permanent | sed 's/\( lladdr [^ ]*\)*\( managed extern_learn\).*/\2/' | sort
echo == nftables; nft --stateless list ruleset
echo == iptables; iptables-save | grep -v '^#' | sed 's/\[[0-9:]*\]//'; ip6tables-save | grep -v '^#' | sed 's/\[[0-9:]*\]//'
if [ -S /run/openvswitch/db.sock ]; then echo == OVS; ovs-vsctl --timeout=30 show; fi
echo == files; find /run/ovs-gre /var/lib/cni ! -type d ! -name lock ! -name 'last_reserved_ip*' 2>/dev/null | sort
find /run/ovs-gre ! \( -type d -empty -name routes \) 2>/dev/null | sort
`

func snapshot(t testing.TB, h *testnet.Host) string {
	t.Helper()
	return h.Run(t, "sh", "-c", snapshotScript)
}

// unchanged compares the host with a snapshot of it. Links of a namespace that
// is gone go in the kernel's own time.
func unchanged(t testing.TB, h *testnet.Host, before string) {
	t.Helper()
	testnet.Eventually(t, 30*time.Second, func() error { return differs(h, before, snapshot(t, h)) })
}

// differs is an error that says what two snapshots differ in.
func differs(h *testnet.Host, before, after string) error {
	if d := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")); d != "" {
		return fmt.Errorf("%s is not as it was:\n%s", h.Name, d)
	}
	return nil
}
