package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// confined is the code for a process that the host's network is out of reach for.
const confined = 103

// asUser becomes an ordinary user.
const asUser = "setpriv --reuid 1000 --regid 1000 --clear-groups "

// TestConfined calls the plugin as rootless runtimes do: it says so, changes
// nothing, and is not in the way of the DEL that follows.
func TestConfined(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	// A user cannot search the directory that root has its binaries in.
	user, err := os.MkdirTemp("/tmp", "ovs-gre-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(user) })
	h.Shell(t, "cp /opt/cni/bin/ovs-gre "+user+"; chmod 755 "+user)
	conflist := cnitest.Network{}.Conflist(l)
	conf := cnitest.PluginConf(t, conflist, "ovs-gre", nil)
	named := cnitest.PluginConf(t, conflist, "ovs-gre", cnitest.Conf{"node": "host1"})
	c := h.NewNetns(t, "c1")
	empty := snapshot(t, h)
	for _, attached := range []bool{false, true} {
		if attached { // the network stands, and root's directory is there
			result(t, h.NewNetns(t, "other"), "ovs-gre", conf)
		}
		before := snapshot(t, h)
		for _, tt := range []struct{ name, how, conf, says string }{
			{"rootless, as RootlessKit is", asUser + "unshare -r -n", conf, "user namespace"},
			{"rootless, where the entry is named", asUser + "unshare -r -n", named, "user namespace"},
			{"rootless on the host's network", asUser + "unshare -r", conf, "user namespace"},
			{"root of a user namespace", "unshare -r -n", conf, "user namespace"},
			{"root of a user namespace on the host's network", "unshare -r", conf, "user namespace"},
			{"a user", asUser, conf, "CAP_NET_ADMIN"},
			{"root without the capability", "setpriv --bounding-set -net_admin", conf, "CAP_NET_ADMIN"},
		} {
			t.Run(fmt.Sprintf("%s, attached %t", tt.name, attached), func(t *testing.T) {
				run := func(verb string) error { return within(t, c, tt.how+" "+user+"/ovs-gre", verb, tt.conf) }
				wantError(t, run("ADD"), confined, "out of reach", tt.says)
				wantError(t, run("STATUS"), 50, "out of reach", tt.says)
				if err := run("DEL"); err != nil {
					t.Errorf("DEL: %v", err)
				}
				unchanged(t, h, before)
			})
		}
	}
	// A container that root attached is not lost by such a DEL.
	result(t, c, "ovs-gre", conf)
	wantError(t, within(t, c, "setpriv --bounding-set -net_admin "+user+"/ovs-gre", "DEL", conf), confined, "CAP_NET_ADMIN")
	for _, name := range []string{"c1", "other"} {
		n := &testnet.Netns{Name: name, Path: "/var/run/netns/" + name, Host: h}
		if _, err := call(n, "ovs-gre", "DEL", conf); err != nil {
			t.Error(err)
		}
	}
	h.Shell(t, "ip netns delete other")
	unchanged(t, h, empty)
}

// within calls a plugin by a shell command.
func within(t *testing.T, c *testnet.Netns, command, verb, conf string) error {
	t.Helper()
	cmd := c.Host.Command(context.Background(), "sh", "-c", "exec "+command)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=/opt/cni/bin", "CNI_COMMAND=" + verb,
		"CNI_CONTAINERID=" + c.Name, "CNI_NETNS=" + c.Path, "CNI_IFNAME=eth0"}
	cmd.Stdin = strings.NewReader(conf)
	out, err := cmd.Output()
	if err == nil {
		return nil
	}
	var e types.Error
	if json.Unmarshal(out, &e) != nil || e.Msg == "" {
		return fmt.Errorf("%w: %s", err, out)
	}
	return &e
}
