package grectl

import (
	"context"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestFlowRestore: around a start of ovs-vswitchd the key that lets the kernel's
// datapath go on is set where it is of use, and is gone afterwards whatever happens.
func TestFlowRestore(t *testing.T) {
	for name, c := range map[string]cnitest.Conf{
		"a list":  {"tunnel": cnitest.Conf{"ports": "one"}},
		"no list": {"nodes": cnitest.Conf{"underlay": "172.16.0.0/16", "containers": "10.0.0.0/8"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flowRestore(t, cnitest.Network{OVSGRE: c})
		})
	}
}

func flowRestore(t *testing.T, n cnitest.Network) {
	l := testnet.New(t, testnet.Options{Hosts: 2, PluginDir: cnitest.BinDir(t)})
	n.Install(t, l)
	upAll(t, l)
	cs := cnitest.AddAll(t, l, "ovsnet")
	h, ctx := l.Hosts[0], context.Background()
	script := shipped(t, "flow-restore")
	h.WriteFile(t, "/etc/cni/fake/unchanged", script)
	// What the kernel's datapath would have, for a datapath that has it not.
	h.WriteFile(t, "/etc/cni/fake/flow-restore", strings.Replace(script, `! grep -Eq '"datapathType": *"netdev"' "$config"`, "true", 1))
	service := func(active string) {
		h.WriteFile(t, "/etc/cni/fake/systemctl", "#!/bin/sh\n"+active+"\n")
		h.Shell(t, "chmod 755 /etc/cni/fake/systemctl")
	}
	run := func(args string) {
		t.Helper()
		h.Shell(t, "PATH=/etc/cni/fake:/opt/cni/bin:$PATH sh /etc/cni/fake/"+args)
	}
	set := func(want bool, when string) {
		t.Helper()
		out := h.Shell(t, "ovs-vsctl --timeout=20 get Open_vSwitch . other_config external_ids")
		if strings.Count(out, "flow-restore") != map[bool]int{true: 2}[want] {
			t.Errorf("%s: %s", when, out)
		}
	}
	restart := func() {
		t.Helper()
		for _, step := range []func(context.Context) error{h.StopVswitchd, h.StartVswitchd} {
			if err := step(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	service("false")
	run("flow-restore begin")
	set(false, "ovs-gre.service is not active")
	service("true")
	if l.Datapath == testnet.DatapathNetdev {
		run("unchanged begin")
		set(false, "the userspace datapath")
	}
	run("flow-restore begin")
	set(true, "begin")
	run("flow-restore begin")
	restart()
	run("flow-restore restore")
	set(false, "restore")
	if err := cs[0].Call("check"); err != nil {
		t.Errorf("CHECK after restore: %v", err)
	}
	cnitest.AllReach(t, cs)

	run("flow-restore begin")
	run("flow-restore end") // the start has failed
	set(false, "end")
	run("flow-restore begin")
	h.WriteFile(t, "/etc/cni/fake/ovs-grectl", "#!/bin/sh\nexit 1\n")
	h.Shell(t, "chmod 755 /etc/cni/fake/ovs-grectl")
	run("flow-restore restore")
	set(false, "restore where up fails")

	// Of ovs-ctl or a person.
	h.Shell(t, "ovs-vsctl --timeout=20 --no-wait set Open_vSwitch . other_config:flow-restore-wait=true")
	for _, verb := range []string{"begin", "restore", "end"} {
		run("flow-restore " + verb)
		if out := h.Shell(t, "ovs-vsctl --timeout=20 get Open_vSwitch . other_config:flow-restore-wait"); !strings.Contains(out, "true") {
			t.Errorf("%s took another's key away", verb)
		}
	}
	h.Shell(t, "ovs-vsctl --timeout=20 --no-wait remove Open_vSwitch . other_config flow-restore-wait")
	cnitest.DelAll(t, cs)
	want(t, 0, h, "down", "--force", "/etc/cni/net.d/10-ovsnet.conflist")
}
