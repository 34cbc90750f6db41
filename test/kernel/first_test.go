package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestFirstSeconds starts Open vSwitch as soon as the machine is up, and at
// once calls up on one host and ADD on the other, which has a bridge already:
// when both have ended, ovs-vswitchd takes packets. That of OVS 3.1.0 on the
// kernel datapath would never. Only a machine that has just booted, with one
// processor, proves anything; test/kernel/first gives it one, and another where
// that was too slow.
func TestFirstSeconds(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 2, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	cnitest.Network{}.Install(t, l)
	defer func() { report(t, l, "Open vSwitch, up and ADD in the first ten seconds") }()
	c := &cnitest.Container{Netns: l.Hosts[1].NewNetns(t, "c1"), Network: "ovsnet", IfName: "eth0"}
	for _, h := range l.Hosts {
		if err := startAtOnce(h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
	}
	// What a reboot keeps of a network on the second host.
	l.Hosts[1].Shell(t, "ovs-vsctl --timeout=20 add-br obr0 -- set bridge obr0 datapath_type="+l.Datapath+" external_ids:ovs-gre.network=ovsnet external_ids:ovs-gre.role=bridge; ip link set obr0 up")
	up := make(chan error)
	go func() {
		_, err := l.Hosts[0].Output(context.Background(), "/opt/cni/bin/ovs-grectl", "up")
		up <- err
	}()
	if err := errors.Join(c.Call("add"), <-up); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("OVSGRE_FRESH") != "" {
		log := l.Hosts[1].Run(t, "cat", "/var/log/openvswitch/ovs-vswitchd.log")
		if !strings.Contains(log, "Overriding n-handler-threads to 0") {
			t.Error("too slow: ovs-vswitchd was started too late after boot for this to prove anything")
		}
	}
	if lost, err := cnitest.Unreached(l.Hosts[0], append(c.Addrs(), netip.MustParseAddr("192.168.2.1"))...); err != nil || len(lost) > 0 {
		t.Errorf("no answer from %v %v", lost, err)
	}
	cnitest.DelAll(t, []*cnitest.Container{c})
	l.Hosts[0].Run(t, "/opt/cni/bin/ovs-grectl", "down", "--force", "/etc/cni/net.d/10-ovsnet.conflist")
}

// startAtOnce is StartOVS, which waits on the kernel datapath, without the wait.
func startAtOnce(h *testnet.Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if os.Getenv("OVSGRE_FRESH") == "" {
		return h.StartOVS(ctx)
	}
	if err := h.StartOVSDB(ctx); err != nil {
		return err
	}
	out, err := h.Output(ctx, "sh", "-ec", "ovs-vswitchd -vconsole:off --pidfile --detach --no-chdir --log-file; cut -d' ' -f1 /proc/uptime")
	fmt.Printf("kernel: %s: ovs-vswitchd was started %s s after boot\n", h.Name, strings.TrimSpace(out))
	return err
}
