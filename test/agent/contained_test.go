package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// contain runs its arguments as Kubernetes runs the agent: in process and mount
// namespaces of its own, with a fresh /proc whose sysctls are read-only and
// whose boot id is not the host's, root with one capability. What the host has
// of it is below /run/host-proc-sys.
const contain = `
exec unshare --mount --pid --fork --kill-child sh -ec '
	mount --make-rslave /
	mount --bind /run /mnt
	mount -t tmpfs tmpfs /run
	mkdir -p /run/ovs-gre /run/openvswitch /run/host-proc-sys/net /run/host-proc-sys/kernel/random
	mount --bind /mnt/ovs-gre /run/ovs-gre
	mount --bind /mnt/openvswitch /run/openvswitch
	umount /mnt
	mount --bind /proc/sys/net /run/host-proc-sys/net
	touch /run/host-proc-sys/kernel/random/boot_id
	mount --bind /proc/sys/kernel/random/boot_id /run/host-proc-sys/kernel/random/boot_id
	mount -t proc proc /proc
	mount --bind /proc/sys /proc/sys
	mount -o remount,bind,ro /proc/sys
	exec setpriv --bounding-set -all,+net_admin --inh-caps -all --no-new-privs -- "$0" "$@"
' "$0" "$@"`

// contained starts the agent of a host as Kubernetes does.
func contained(t *testing.T, h *testnet.Host) *agent {
	t.Helper()
	h.Shell(t, "mkdir -p -m 700 /run/ovs-gre")
	return run(t, h, "sh", "-ec", contain, program, "run", "--template", template, "--nodes-file", nodesFile,
		"--listen", "127.0.0.1:9178", "--resync", "1h", "--procsys", "/run/host-proc-sys")
}

// TestContained: it works with CAP_NET_ADMIN alone, and takes the host for the
// one that the plugins see: its boot, its locks, its ovs-vswitchd.
func TestContained(t *testing.T) {
	l := lab(t, 2, 2)
	h := l.Hosts[0]
	a := contained(t, h)
	start(t, l.Hosts[1]).ready(t)
	a.ready(t)
	cs := cnitest.AddAll(t, l, network)
	cnitest.AllReach(t, cs)
	before := host(t, h)
	h.Shell(t, `ovs-vsctl del-port $(ovs-vsctl --bare --columns=name find port external_ids:ovs-gre.role=tunnel) -- del-br obr0-t; echo 0 >/proc/sys/net/ipv4/ip_forward`)
	testnet.Eventually(t, longest, func() error {
		if after := host(t, h); after != before {
			return fmt.Errorf("before\n%s\nafter\n%s", before, after)
		}
		return nil
	})
	a.ready(t)
	cnitest.AllReach(t, cs)
	if out := h.Shell(t, "cat /proc/sys/net/ipv4/ip_forward"); out != "1\n" {
		t.Errorf("ip_forward is %s", out)
	}
	if strings.Contains(a.said(), "of a former boot") {
		t.Error("it took running containers for those of a former boot")
	}

	// A plugin that holds the network's lock is waited for.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lock := h.Command(ctx, "flock", "--close", "/run/ovs-gre/"+network+"/lock", "sh", "-c", "echo held; sleep 1000")
	testnet.StartReady(t, lock)
	passes := a.metric(t, "ovs_gre_agent_reconcile_duration_seconds_count")
	h.Shell(t, `ip route del $(ip route show proto 121 | cut -d" " -f1)`)
	a.idle(t)
	if n := a.metric(t, "ovs_gre_agent_reconcile_duration_seconds_count"); n != passes || host(t, h) == before {
		t.Errorf("%.0f passes were made although another had the lock", n-passes)
	}
	cancel()
	_ = lock.Wait()
	testnet.Eventually(t, longest, func() error {
		if after := host(t, h); after != before {
			return fmt.Errorf("before\n%s\nafter\n%s", before, after)
		}
		return nil
	})

	// An ovs-vswitchd that is dead is seen to be.
	if err := h.StopOVS(context.Background()); err != nil {
		t.Fatal(err)
	}
	h.Shell(t, `ip link set lo down; ip link set lo up; ip route del $(ip route show proto 121 | cut -d" " -f1) || true`)
	testnet.Eventually(t, longest, func() error {
		if body, code := a.get("/readyz"); code != 503 {
			return fmt.Errorf("readyz without OVS: %d %s", code, body)
		}
		return nil
	})
	if err := h.StartOVS(context.Background()); err != nil {
		t.Fatal(err)
	}
	a.ready(t)
	cnitest.AllReach(t, cs)

	// The directory that is mounted is removed on the host: it cannot go on.
	cnitest.DelAll(t, cs[:1])
	h.Shell(t, "rm -r /run/ovs-gre/*; rmdir /run/ovs-gre")
	h.Shell(t, `ip route del $(ip route show proto 121 | cut -d" " -f1)`)
	testnet.Eventually(t, longest, func() error {
		if said := a.said(); !strings.Contains(said, "removed under this mount") {
			return fmt.Errorf("it said\n%s", said)
		}
		return nil
	})
	if err := a.wait(t); err == nil {
		t.Error("it ended as if all were well")
	}
}
