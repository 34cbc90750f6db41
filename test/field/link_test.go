package field

import (
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/test/cnitest"
)

// TestRenamedLink: a container's link that somebody has renamed on the host is
// found by its alias: CHECK names it, GC and up let the container be while it
// is valid, and DEL and GC take it away.
func TestRenamedLink(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	n := cnitest.Network{}
	n.Install(t, l)
	conf := cnitest.PluginConf(t, n.Conflist(l), "ovs-gre", nil)
	routers(t, l)
	before := cnitest.MustLook(t, h)
	rename := func(c *cnitest.Container) {
		h.Shell(t, "ip link set "+portOf(c)+" down; ip link set "+portOf(c)+" name renamed-"+c.Name+" up")
	}
	valid := func(cs ...*cnitest.Container) cnitest.Conf {
		list := []config.Attachment{}
		for _, c := range cs {
			list = append(list, config.Attachment{ContainerID: c.Name, IfName: "eth0"})
		}
		return cnitest.Conf{"cni.dev/valid-attachments": list}
	}
	gone := func(c *cnitest.Container) {
		t.Helper()
		if links := h.Shell(t, "ip -o link"); links != "" {
			hasNot(t, "links", links, "renamed-"+c.Name)
		}
	}
	c1, c2 := attached(t, h, "c1", conf), attached(t, h, "c2", conf)
	rename(c1)
	rename(c2)
	_, err := cnitest.Call(c1.Netns, "ovs-gre", "CHECK", with(t, conf, cnitest.Conf{"prevResult": c1.Result}))
	cnitest.WantError(t, err, 100, "the container's link "+portOf(c1)+" is called renamed-c1 now")
	_, err = cnitest.Call(c1.Netns, "ovs-gre", "ADD", conf)
	cnitest.WantError(t, err, 102, "CNI_IFNAME eth0")
	if _, err := cnitest.Plugin(h, "ovs-gre", "GC", with(t, conf, valid(c1, c2))); err != nil {
		t.Errorf("GC: %v", err)
	}
	if r := cnitest.Ctl(t, h, "gc"); r.Code != 0 || r.Out != "" {
		t.Errorf("ovs-grectl gc: %+v", r)
	}
	has(t, "status", cnitest.Ctl(t, h, "status").Out, "c1 eth0", "c2 eth0")
	del(t, c1, conf)
	hasNot(t, "neighbours", h.Shell(t, "ip neigh show nud permanent dev obr0"), c1.Addrs()[0].String()+" ")
	gone(c1)
	if _, err := cnitest.Plugin(h, "ovs-gre", "GC", with(t, conf, valid())); err != nil {
		t.Errorf("GC: %v", err)
	}
	gone(c2)
	h.Shell(t, "ip netns delete c1; ip netns delete c2")
	settled(t, before, h)
}

// TestLeasesAreLost: whatever becomes of /run/ovs-gre, the last removal looks
// for living containers; one that nobody counts is told (messages.md P8: ADD and
// DEL of c2 took bridge, tunnels and routes from under c1).
func TestLeasesAreLost(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	routers(t, l)
	before := cnitest.MustLook(t, h)
	far := cnitest.Add(t, l.Hosts[1], "ovsnet", "far")
	c1 := cnitest.Add(t, h, "ovsnet", "c1")
	ping(t, c1, far)

	h.Shell(t, "rm -r /run/ovs-gre")
	c2 := cnitest.Add(t, h, "ovsnet", "c2")
	if err := c2.Call("del"); err != nil {
		t.Errorf("DEL of c2: %v", err)
	}
	c2.Delete(t)
	ping(t, c1, far)
	has(t, "status", cnitest.Ctl(t, h, "status").Out, c1.ID()+" eth0", "its lease is lost", "DRIFT")
	has(t, "doctor", cnitest.Ctl(t, h, "doctor").Out, "1 containers have lost their leases", c1.ID())
	other := cnitest.PluginConf(t, cnitest.Network{OVSGRE: cnitest.Conf{"bridge": "obr9"}}.Conflist(l), "ovs-gre", nil)
	c3 := h.NewNetns(t, "c3")
	_, err := cnitest.Call(c3, "ovs-gre", "ADD", other)
	cnitest.WantError(t, err, invalid, `bridge "obr9": containers of network ovsnet are attached to obr0`)
	c3.Delete(t)
	ping(t, c1, far)
	if r := cnitest.Ctl(t, h, "up"); r.Code != 0 {
		t.Errorf("up: %+v", r)
	}
	hasNot(t, "status after up", cnitest.Ctl(t, h, "status").Out, "DRIFT")
	h.Shell(t, "rm /run/ovs-gre/ovsnet/persistent")
	if err := c1.Call("del"); err != nil {
		t.Errorf("DEL of c1: %v", err)
	}
	c1.Delete(t)
	settled(t, before, h)
}
