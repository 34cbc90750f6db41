package testnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// tunnel makes a bridge with an address on both hosts, and a GRE tunnel
// between the bridges.
func tunnel(t *testing.T, a, b *Host, addr [2]string) {
	t.Helper()
	for i, h := range []*Host{a, b} {
		peer := []*Host{b, a}[i]
		h.Run(t, "ovs-vsctl", "--timeout=20",
			"add-br", "obr0", "--", "set", "bridge", "obr0", "datapath_type="+h.lab.Datapath, "fail_mode=standalone",
			fmt.Sprintf(`other_config:hwaddr="0a:58:c0:a8:01:%02x"`, i+1),
			"--", "set", "interface", "obr0", "mtu_request=1462",
			"--", "add-port", "obr0", "tun", "--", "set", "interface", "tun", "type=gre", "options:remote_ip="+peer.Addr4.String())
		h.Shell(t, "ip link set obr0 up; ip addr add "+addr[i]+" dev obr0")
	}
}

func TestOVSOfItsOwn(t *testing.T) {
	l := New(t, Options{Hosts: 2})
	l.Hosts[0].Run(t, "ovs-vsctl", "--timeout=20", "add-br", "first")
	for i, h := range l.Hosts {
		if got := strings.Contains(h.Run(t, "ovs-vsctl", "--timeout=20", "show"), "Bridge first"); got != (i == 0) {
			t.Errorf("%s has bridge first: %v", h.Name, got)
		}
		h.Run(t, "ovs-appctl", "--timeout=20", "version") // finds the socket by the pid file
	}
}

func TestTunnel(t *testing.T) {
	l := New(t, Options{Hosts: 3})
	a, b := l.Hosts[0], l.Hosts[1]
	gre := l.Capture(t, "proto gre")
	none := l.Capture(t, "udp port 4789")
	inner := CaptureIn(t, a, a.UnderlayLink, "icmp")
	before := l.UnderlayPackets(t)
	tunnel(t, a, b, [2]string{"192.168.1.1/24", "192.168.1.2/24"})
	to := netip.MustParseAddr("192.168.1.2")
	Eventually(t, 20*time.Second, func() error { return Ping(t.Context(), a, to, PingOptions{}) })
	if err := Ping(t.Context(), a, to, PingOptions{Count: 3, Size: 1462 - 28, DontFragment: true}); err != nil {
		t.Error(err)
	}
	if n := l.UnderlayPackets(t) - before; n < 8 {
		t.Errorf("UnderlayPackets grew by %d", n)
	}
	got := gre.Stop(t)
	count := func(parts ...string) (n int) {
		for _, line := range got {
			all := true
			for _, p := range parts {
				all = all && strings.Contains(line, p)
			}
			if all {
				n++
			}
		}
		return n
	}
	requests := count("172.16.32.100 > 172.16.32.101: GREv0", "192.168.1.1 > 192.168.1.2: ICMP echo request")
	replies := count("172.16.32.101 > 172.16.32.100: GREv0", "192.168.1.2 > 192.168.1.1: ICMP echo reply")
	if requests < 4 || replies < 4 {
		t.Errorf("%d echo requests, %d replies in:\n%s", requests, replies, strings.Join(got, "\n"))
	}
	if got := none.Stop(t); len(got) != 0 {
		t.Errorf("VXLAN packets: %q", got)
	}
	for _, line := range inner.Stop(t) {
		if strings.Contains(line, "echo") {
			t.Errorf("outside of the tunnel: %s", line)
		}
	}
}

func TestReboot(t *testing.T) {
	own := t.TempDir()
	l := New(t, Options{Hosts: 2, OwnDirs: []string{own}})
	a, b := l.Hosts[0], l.Hosts[1]
	tunnel(t, a, b, [2]string{"192.168.1.1/24", "192.168.1.2/24"})
	a.NewNetns(t, "c")
	a.WriteFile(t, "/etc/cni/kept", "yes")
	a.WriteFile(t, own+"/kept", "yes")
	a.WriteFile(t, "/run/lost", "yes")
	const bootID = "/proc/sys/kernel/random/boot_id"
	before, pid := a.Run(t, "cat", bootID), a.PID()

	begin := time.Now()
	if err := a.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("reboot took %v", time.Since(begin).Round(time.Millisecond))

	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
		t.Error("the old init is still there")
	}
	if got := a.Run(t, "cat", bootID); got == before {
		t.Error("same boot id:", got)
	}
	if got := a.Run(t, "cat", "/etc/cni/kept"); got != "yes" {
		t.Error("a file on disk is lost")
	}
	if got := a.Run(t, "cat", own+"/kept"); got != "yes" {
		t.Error("a file in a directory of the host's own is lost")
	}
	if got := b.Run(t, "ls", own); got != "" {
		t.Errorf("the other host sees %s", got)
	}
	if got := a.Shell(t, "ls /run/lost /run/netns 2>/dev/null || :"); strings.TrimSpace(got) != "/run/netns:" {
		t.Errorf("left in /run: %q", got)
	}
	if got := a.Run(t, "ovs-vsctl", "--timeout=20", "list-ports", "obr0"); got != "tun\n" {
		t.Errorf("ports of obr0: %q", got)
	}
	if got := a.Run(t, "ip", "addr", "show", "dev", "obr0"); !strings.Contains(got, "state DOWN") || strings.Contains(got, "inet") {
		t.Errorf("obr0: %s", got)
	}
	// What the rebooted host's boot scripts would do.
	a.Shell(t, "ip link set obr0 up; ip addr add 192.168.1.1/24 dev obr0")
	Eventually(t, 20*time.Second, func() error { return Ping(t.Context(), b, netip.MustParseAddr("192.168.1.1"), PingOptions{}) })
}

func TestDaemons(t *testing.T) {
	l := New(t, Options{Hosts: 2})
	h, peer := l.Hosts[0], l.Hosts[1]
	tunnel(t, h, peer, [2]string{"192.168.1.1/24", "192.168.1.2/24"})
	// Who should answer has all the time that a busy machine takes; who should
	// not is not waited for so long.
	answers := func(should bool, name string, args ...string) error {
		waitTimeout := 500 * time.Millisecond
		if should {
			waitTimeout = 20 * time.Second
		}
		ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
		defer cancel()
		_, err := h.Output(ctx, name, args...)
		return err
	}
	for _, step := range []struct {
		name           string
		do             func(context.Context) error
		ovsdb, vswitch bool // what answers afterwards
	}{
		{"PauseVswitchd", h.PauseVswitchd, true, false},
		{"ResumeVswitchd", h.ResumeVswitchd, true, true},
		{"KillVswitchd", h.KillVswitchd, true, false},
		{"KillVswitchd again", h.KillVswitchd, true, false},
		{"StartVswitchd", h.StartVswitchd, true, true},
		{"StopVswitchd", h.StopVswitchd, true, false},
		{"StartOVS", h.StartOVS, true, true},
		{"StartOVS again", h.StartOVS, true, true},
		{"KillOVSDB", h.KillOVSDB, false, true},
		{"StartOVSDB", h.StartOVSDB, true, true},
		{"StopOVSDB", h.StopOVSDB, false, true},
		{"StopOVS", h.StopOVS, false, false},
		{"StartOVS", h.StartOVS, true, true},
	} {
		if err := step.do(t.Context()); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if err := answers(step.ovsdb, "ovs-vsctl", "br-exists", "obr0"); (err == nil) != step.ovsdb {
			t.Errorf("%s: ovsdb-server: %v", step.name, err)
		}
		if err := answers(step.vswitch, "ovs-appctl", "version"); (err == nil) != step.vswitch {
			t.Errorf("%s: ovs-vswitchd: %v", step.name, err)
		}
	}
	if err := h.pingAll(t.Context()); err != nil {
		t.Error(err)
	}
	Eventually(t, 20*time.Second, func() error { return Ping(t.Context(), h, netip.MustParseAddr("192.168.1.2"), PingOptions{}) })
}

func TestNoOVS(t *testing.T) {
	l := New(t, Options{Hosts: 2, NoOVS: true})
	h := l.Hosts[0]
	if h.UnderlayLink != "eth0" || h.running(ovsdbServer) || h.running(vswitchd) {
		t.Error("Open vSwitch runs")
	}
	if err := Ping(t.Context(), h, l.Hosts[1].Addr6, PingOptions{}); err != nil {
		t.Error(err)
	}
	if err := h.PauseVswitchd(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Error("paused what does not run:", err)
	}
	if err := h.StartOVS(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := Ping(t.Context(), h, l.Hosts[1].Addr6, PingOptions{}); err != nil {
		t.Error(err)
	}
}
