package field

import (
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestLinkChangedByHand: another MTU or MAC address of a link of ours is taken
// back by the next ADD, and by up, with what the kernel dropped meanwhile. On
// the userspace datapath ovs-vswitchd does the first half, sooner or later.
func TestLinkChangedByHand(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	far := cnitest.Add(t, l.Hosts[1], "ovsnet", "far")
	c := cnitest.Add(t, h, "ovsnet", "c0")
	was := h.Shell(t, "ip -o link show obr0; ip -o link show obr0-t")
	for i, do := range []string{
		"ip link set obr0 mtu 1300", "ip link set obr0-t mtu 1300", "ip link set obr0 address 02:00:00:00:00:01", "ip link set obr0-t address 02:00:00:00:00:02",
	} {
		h.Shell(t, do)
		if err := c.Call("check"); err != nil && !strings.Contains(err.Error(), "obr0") {
			t.Errorf("%s: CHECK: %v", do, err)
		}
		if i%2 == 0 {
			next := cnitest.Add(t, h, "ovsnet", fmt.Sprintf("c%d", i+1))
			ping(t, next, far)
		} else if r := cnitest.Ctl(t, h, "up"); r.Code != 0 {
			t.Errorf("up: %+v", r)
		}
		hasNot(t, "status", cnitest.Ctl(t, h, "status").Out, "DRIFT")
		waitFor(t, func() bool { return h.Shell(t, "ip -o link show obr0; ip -o link show obr0-t") == was })
		ping(t, c, far)
	}
}

// TestLinuxBridgeMTU: the MTU of a Linux bridge is at most what fits into the
// tunnels, whoever sets it; less stays (docker.md F1: Docker 28 and later set
// 1500 at each start, and large TCP was dead with all green).
func TestLinuxBridgeMTU(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	for _, h := range l.Hosts {
		h.Shell(t, "ip link add br0 type bridge; ip link set br0 up")
	}
	cnitest.Network{OVSGRE: cnitest.Conf{"linuxBridge": "br0"}}.Install(t, l)
	unset := cnitest.Add(t, l.Hosts[1], "ovsnet", "far")
	if err := unset.Call("del"); err != nil {
		t.Error(err)
	}
	// Nobody has set it: it followed the port, and goes back.
	has(t, "after the last container", l.Hosts[1].Shell(t, "ip -o link show br0"), "mtu 1500 ")
	mtu := func() string { return strings.TrimSpace(h.Shell(t, "ip -o link show br0 | grep -o 'mtu [0-9]*'")) }
	c := cnitest.Add(t, h, "ovsnet", "c0")
	fits := mtu()
	h.Shell(t, "ip link set br0 mtu 1500")
	if err := c.Call("check"); err == nil || !strings.Contains(err.Error(), "link br0 differs") {
		t.Errorf("CHECK: %v", err)
	}
	if _, err := cnitest.Plugin(h, "ovs-gre", "STATUS", cnitest.PluginConf(t, cnitest.Network{OVSGRE: cnitest.Conf{"linuxBridge": "br0"}}.Conflist(l), "ovs-gre", nil)); err != nil {
		t.Errorf("STATUS of what the next ADD heals: %v", err)
	}
	cnitest.Add(t, h, "ovsnet", "c1")
	if now := mtu(); now != fits {
		t.Errorf("after ADD the MTU is %s, want %s", now, fits)
	}
	h.Shell(t, "ip link set br0 mtu 1500")
	if r := cnitest.Ctl(t, h, "up"); r.Code != 0 || mtu() != fits {
		t.Errorf("after up the MTU is %s: %+v", mtu(), r)
	}
	h.Shell(t, "ip link set br0 mtu 1300")
	if err := c.Call("check"); err != nil {
		t.Errorf("CHECK with less: %v", err)
	}
	if r := cnitest.Ctl(t, h, "up"); r.Code != 0 || r.Out != "" || mtu() != "mtu 1300" {
		t.Errorf("with less, up: MTU %s, %+v", mtu(), r)
	}
}
