package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// The start script of the container that has Open vSwitch, and a program before
// ovs-vswitchd that notes what OVSDB says when that starts.
const (
	ovsStart   = "/etc/cni/fake/start"
	ovsNoted   = "/etc/cni/fake/noted"
	ovsNoticer = `#!/bin/sh
case $* in *--version*) ;; *) ovs-vsctl --no-wait --timeout=20 get Open_vSwitch . other_config external_ids >` + ovsNoted + `;; esac
exec /usr/sbin/ovs-vswitchd "$@"
`
)

// TestOpenVSwitchContainer: the start script of Open vSwitch's container lets the kernel's
// datapath go on until the agent has put the flows of one tunnel port back, and never for
// longer than ten seconds.
func TestOpenVSwitchContainer(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 1, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	h := l.Hosts[0]
	h.WriteFile(t, template, strings.Replace(conf(t, l), `"type": "ovs-gre"`, `"type": "ovs-gre", "tunnel": {"ports": "one"}`, 1))
	list(t, l, l.Hosts, append(all(l), strangers(3)...))
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(root, "deploy/image/openvswitch/start"))
	if err != nil {
		t.Fatal(err)
	}
	h.WriteFile(t, ovsStart+".shipped", string(script))
	// What the kernel's datapath would have, for a datapath that has it not.
	h.WriteFile(t, ovsStart, strings.Replace(string(script), `datapath_type)" = netdev ]`, `datapath_type)" = none ]`, 1))
	h.WriteFile(t, "/etc/cni/fake/ovs-vswitchd", ovsNoticer)
	h.Shell(t, "chmod 755 /etc/cni/fake/ovs-vswitchd")

	c := openVSwitch(t, h, ovsStart, network)
	c.noted(t, false, "there is no network yet")
	a := start(t, h)
	a.ready(t)
	c.kill(t)
	c = openVSwitch(t, h, ovsStart, network)
	c.noted(t, true, "a killed container is started anew")
	c.resumes(t, true)
	c.stop(t)

	// Nobody puts the flows back.
	a.end()
	c = openVSwitch(t, h, ovsStart, network)
	c.noted(t, true, "the agent is away")
	c.kill(t)
	c = openVSwitch(t, h, ovsStart, "other")
	c.noted(t, false, "there is no such network any more")
	c.kill(t)
	c = openVSwitch(t, h, ovsStart, network)
	c.noted(t, true, "the agent is away")
	c.stop(t)
	c = openVSwitch(t, h, ovsStart, "")
	c.noted(t, false, "no network is named")
	c.stop(t)
	c = openVSwitch(t, h, ovsStart, network)
	c.noted(t, true, "the agent is away")
	c.resumes(t, false)

	// The key of a person.
	h.Shell(t, "ovs-vsctl --no-wait --timeout=20 set Open_vSwitch . other_config:flow-restore-wait=true")
	c.stop(t)
	c = openVSwitch(t, h, ovsStart, network)
	testnet.Eventually(t, longest, func() error {
		_, err := h.Output(context.Background(), "ovs-appctl", "--timeout=5", "version")
		return err
	})
	if out := h.Shell(t, "ovs-vsctl --no-wait --timeout=20 get Open_vSwitch . other_config:flow-restore-wait; cat "+ovsNoted); !strings.Contains(out, "true") ||
		strings.Contains(out, "ovs-gre.flow-restore") {
		t.Errorf("it took another's key: %s", out)
	}
	h.Shell(t, "ovs-vsctl --no-wait --timeout=20 remove Open_vSwitch . other_config flow-restore-wait")
	c.stop(t)
	if l.Datapath == testnet.DatapathNetdev {
		c = openVSwitch(t, h, ovsStart+".shipped", network)
		c.noted(t, false, "the userspace datapath")
		c.stop(t)
	}
}

// A container is one of Open vSwitch's, without its namespaces.
type container struct{ *agent }

// openVSwitch starts such a container, by a start script, beside the agent of a network.
func openVSwitch(t *testing.T, h *testnet.Host, script, network string) container {
	t.Helper()
	h.Shell(t, "rm -f "+ovsNoted)
	return container{run(t, h, "env", "PATH=/etc/cni/fake:"+os.Getenv("PATH"), "FLOW_RESTORE_NETWORK="+network, "sh", script)}
}

// noted waits until ovs-vswitchd starts, and looks whether the switch waits for flows.
func (c container) noted(t *testing.T, want bool, when string) {
	t.Helper()
	testnet.Eventually(t, longest, func() error {
		out, err := c.host.Output(context.Background(), "cat", ovsNoted)
		if err == nil && strings.Count(out, "}") < 2 {
			err = fmt.Errorf("not noted yet: %q", out)
		}
		if n := strings.Count(out, "flow-restore"); err == nil && n != map[bool]int{true: 2}[want] {
			t.Fatalf("%s: ovs-vswitchd starts with %s", when, out)
		}
		return err
	})
}

// resumes waits until the switch waits no more, and looks whether flows are back.
func (c container) resumes(t *testing.T, flows bool) {
	t.Helper()
	testnet.Eventually(t, longest, func() error {
		out, err := c.host.Output(context.Background(), "ovs-vsctl", "--no-wait", "--timeout=20", "get", "Open_vSwitch", ".", "other_config", "external_ids")
		if err == nil && strings.Contains(out, "flow-restore") {
			err = fmt.Errorf("it waits: %s", out)
		}
		return err
	})
	out := c.host.Shell(t, "ovs-ofctl --timeout=20 dump-aggregate obr0-t")
	if have := !strings.Contains(out, "flow_count=0"); have != flows {
		t.Errorf("the switch goes on, and flows are %s, want some: %v", strings.TrimSpace(out), flows)
	}
}

// kill ends all of the container without warning.
func (c container) kill(t *testing.T) {
	t.Helper()
	c.host.Shell(t, `for name in ovs-vswitchd ovsdb-server; do
		pid=$(cat /run/openvswitch/$name.pid) && kill -KILL $pid && while [ -e /proc/$pid ]; do sleep 0.05; done; done`)
	c.end()
}

// stop asks it to end.
func (c container) stop(t *testing.T) {
	t.Helper()
	if err := testnet.Signal(c.cmd, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.wait(t); err != nil {
		t.Fatalf("it ended with %v: %s", err, c.said())
	}
}
