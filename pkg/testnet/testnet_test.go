package testnet

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestUnderlay(t *testing.T) {
	begin := time.Now()
	l := New(t, Options{Hosts: 3})
	t.Logf("3 hosts, datapath %s, after %v", l.Datapath, time.Since(begin).Round(time.Millisecond))

	for _, from := range l.Hosts {
		for _, to := range append(l.Hosts, l.Underlay) {
			// The largest packet that fits, too: nothing on the way is smaller.
			for _, o := range []PingOptions{{}, {Size: 1500 - 28, DontFragment: true}} {
				if err := Ping(t.Context(), from, to.Addr4, o); err != nil {
					t.Error(from.Name, err)
				}
				if o.Size != 0 {
					o.Size -= 20
				}
				if err := Ping(t.Context(), from, to.Addr6, o); err != nil {
					t.Error(from.Name, err)
				}
			}
		}
	}
	if got := l.Hosts[0].Addr4.String() + " " + l.Hosts[2].Addr6.String(); got != "172.16.32.100 fd00:32::102" {
		t.Error("addresses:", got)
	}
	seen := map[string]bool{}
	for _, h := range l.Hosts {
		seen[h.Run(t, "cat", "/proc/sys/kernel/random/boot_id")] = true
		if got := strings.TrimSpace(h.Run(t, "cat", "/proc/sys/net/ipv4/ip_forward")); got != "0" {
			t.Errorf("%s: ip_forward is %s, and the lab must not touch it", h.Name, got)
		}
		if got := h.Run(t, "ip", "-o", "addr", "show", "dev", h.UnderlayLink); !strings.Contains(got, h.Addr4.String()+"/24") {
			t.Errorf("%s: UnderlayLink %s: %s", h.Name, h.UnderlayLink, got)
		}
	}
	if len(seen) != 3 {
		t.Error("boot ids:", seen)
	}
}

func TestUnderlayOptions(t *testing.T) {
	plugins := t.TempDir()
	if err := os.WriteFile(plugins+"/tool", []byte("#!/bin/sh\necho works\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	l := New(t, Options{Hosts: 2, UnderlayMTU: 9000, FirstHost: 7, PluginDir: plugins})
	a, b := l.Hosts[0], l.Hosts[1]
	if got := a.Addr4.String() + " " + b.Addr6.String(); got != "172.16.32.7 fd00:32::8" {
		t.Error("addresses:", got)
	}
	if err := Ping(t.Context(), a, b.Addr4, PingOptions{Size: 9000 - 28, DontFragment: true}); err != nil {
		t.Error(err)
	}
	if got := a.Run(t, "/opt/cni/bin/tool"); got != "works\n" {
		t.Errorf("PluginDir: %q", got)
	}
	if _, err := a.Output(t.Context(), "touch", "/opt/cni/bin/x"); err == nil {
		t.Error("PluginDir can be written to")
	}
	b.WriteFile(t, "/etc/cni/net.d/10-x.conflist", "{}")
	if got, err := os.ReadFile(b.Dir + "/etc/cni/net.d/10-x.conflist"); string(got) != "{}" {
		t.Error("WriteFile:", err)
	}
	if _, err := a.Output(t.Context(), "cat", "/etc/cni/net.d/10-x.conflist"); err == nil {
		t.Error("two hosts share /etc/cni")
	}
}

func TestOptionsRefused(t *testing.T) {
	for _, o := range []Options{{Hosts: -1}, {Hosts: 1, FirstHost: 2}, {Hosts: 2, FirstHost: 254}, {Datapath: "dpdk"}} {
		if err := o.setDefaults(); err == nil {
			t.Errorf("accepted: %+v", o)
		}
	}
}

func TestLabsDoNotMeet(t *testing.T) {
	one, two := New(t, Options{Hosts: 1}), New(t, Options{Hosts: 2})
	if err := Ping(t.Context(), two.Hosts[0], two.Hosts[1].Addr4, PingOptions{}); err != nil {
		t.Error(err)
	}
	if err := Ping(t.Context(), one.Hosts[0], two.Hosts[1].Addr4, PingOptions{}); err == nil {
		t.Error("a host of one lab pings a host of another")
	}
	one.Hosts[0].NewNetns(t, "c")
	if got := two.Hosts[0].Run(t, "ip", "netns", "list"); got != "" {
		t.Errorf("a namespace of one lab in another: %s", got)
	}
	if _, err := os.Stat("/run/netns/c"); err == nil {
		t.Error("a namespace of the lab on the machine")
	}
}

func TestClose(t *testing.T) {
	l := New(t, Options{Hosts: 1})
	pid := l.Hosts[0].PID()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
		t.Error("the host is still there")
	}
	if _, err := os.Stat(l.Dir); err == nil {
		t.Error("Dir is still there")
	}
}
