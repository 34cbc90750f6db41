package hostile

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// far is an address of the IPv6 Internet.
var far = netip.MustParseAddr("2001:4860:4860::8888")

// believed is what a place has by a router advertisement for 2001:db8:bad::/64.
func believed(t *testing.T, at testnet.Runner) string {
	t.Helper()
	return strings.TrimSpace(at.Shell(t, "ip -6 route show default proto ra; ip -6 -o addr show to 2001:db8:bad::/64"))
}

// advertise sends an advertisement of a default router from a link, with a
// multicast ping to wait for: who answers that has seen what came before.
func advertise(t *testing.T, from testnet.Runner, link string) {
	t.Helper()
	m := mac(t, from, link)
	ra := cnitest.RouterAdvertisement(config.LinkLocal(m), m, 1800, netip.MustParsePrefix("2001:db8:bad::/64"))
	frame := cnitest.Frame("33:33:00:00:00:01", m, cnitest.TypeIPv6, ra)
	for range 3 {
		send(t, from, link, frame)
	}
}

// TestContainerIsNoRouter is row 4: a container says that it is the router. The
// host, its peers and the containers beside it do not believe it, in a network
// of IPv4 alone and in one of both.
func TestContainerIsNoRouter(t *testing.T) {
	t.Parallel()
	for _, segment := range segments {
		for family, subnets := range map[string]func(int) []string{"IPv4": only4, "dual stack": cnitest.Subnets} {
			t.Run(segment+", "+family, func(t *testing.T) {
				t.Parallel()
				l := lab(t, 2)
				cnitest.Network{OVSGRE: cnitest.Conf{"segment": segment}, Subnets: subnets}.Install(t, l)
				cs := cnitest.AddAll(t, l, "ovsnet")
				near := cnitest.Add(t, l.Hosts[0], "ovsnet", "near")
				cnitest.AllReach(t, append(cs, near))
				hosts := testnet.CaptureIn(t, cs[0], "eth0", "host "+far.String())
				advertise(t, cs[0], "eth0")
				cnitest.AllReach(t, append(cs, near)) // what comes after them shows that they have passed
				all := map[string]testnet.Runner{"the host": l.Hosts[0], "the peer": l.Hosts[1], "the container beside": near, "the peer's container": cs[1]}
				taken := 0
				for who, at := range all {
					if got := believed(t, at); got != "" {
						taken++
						t.Errorf("%s believes the container: %s", who, got)
					}
				}
				l.Hosts[0].Shell(t, "ip -6 route del default 2>/dev/null || :") // what it has is not by obr0
				_ = testnet.Ping(context.Background(), l.Hosts[0], far, testnet.PingOptions{})
				stolen := len(hosts.Stop(t))
				figure("row 4: segment %s, %s: %d of %d believe a container's router advertisement, %d of the host's packets reach it", segment, family, taken, len(all), stolen)
				if stolen > 0 {
					t.Errorf("%d of the host's packets for %s reach the container", stolen, far)
				}
			})
		}
	}
}

// TestUpgradedHostForgets: addresses and routes that a version before has let a
// link of ours have by an advertisement go with the next ADD, up or pass.
func TestUpgradedHostForgets(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	cnitest.Network{Subnets: only4}.Install(t, l)
	h := l.Hosts[0]
	c := cnitest.Add(t, h, "ovsnet", "c1")
	h.Shell(t, "sysctl -qw net.ipv6.conf.obr0.disable_ipv6=0 net.ipv6.conf.obr0.accept_ra=1")
	testnet.Eventually(t, 10*time.Second, func() error {
		advertise(t, c, "eth0")
		if believed(t, h) == "" {
			return fmt.Errorf("the host does not believe an advertisement, although told to")
		}
		return nil
	})
	if err := c.Call("check"); err == nil || !strings.Contains(err.Error(), "accept_ra") {
		t.Errorf("CHECK: %v, want a word about accept_ra", err)
	}
	h.Run(t, "/opt/cni/bin/ovs-grectl", "up", "/etc/cni/net.d/10-ovsnet.conflist")
	if got := h.Shell(t, "ip -6 addr show dev obr0; ip -6 route show dev obr0"); got != "" {
		t.Errorf("obr0 still has %s", got)
	}
	if err := c.Call("check"); err != nil {
		t.Error(err)
	}
}

// router has the underlay's own link say every half second that it is the
// default router, for a lifetime of seconds.
func router(t *testing.T, l *testnet.Lab, seconds uint16) (stop func()) {
	t.Helper()
	m := mac(t, l.Underlay, "underlay")
	ra := cnitest.RouterAdvertisement(netip.MustParseAddr("fe80::1"), m, seconds, netip.MustParsePrefix("2001:db8:600d::/64"))
	return keepSending(t, l.Underlay, "underlay", 500*time.Millisecond, cnitest.Frame("33:33:00:00:00:01", m, cnitest.TypeIPv6, ra))
}

// routed is nil where a host has its default route by router advertisement.
func routed(t *testing.T, h *testnet.Host) error {
	t.Helper()
	if out := h.Run(t, "ip", "-6", "route", "show", "default", "proto", "ra"); !strings.Contains(out, "via fe80::1 ") {
		return fmt.Errorf("%s has no default route by router advertisement: %q", h.Name, out)
	}
	return nil
}

// TestRouteByAdvertisement is row 6: a host has its default route of IPv6 by
// router advertisement. It keeps it through ADD, and learns of its router anew
// when its lifetime would be over, also after the last DEL and by up and down.
func TestRouteByAdvertisement(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	const lifetime = 3
	h.Shell(t, "ip -6 route delete default; sysctl -qw net.ipv6.route.gc_interval=1") // the kernel looks for what is over so often
	if v := strings.TrimSpace(h.Shell(t, "cat /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/net/ipv6/conf/"+h.UnderlayLink+"/accept_ra")); v != "0\n1" {
		t.Fatalf("forwarding and accept_ra are %q", v)
	}
	stop := router(t, l, lifetime)
	has := func() error { return routed(t, h) }
	testnet.Eventually(t, 20*time.Second, has)
	cnitest.Network{}.Install(t, l)
	steps := []struct {
		name string
		do   func()
	}{
		{"ADD", func() { cnitest.Add(t, h, "ovsnet", "c1") }},
		{"the last DEL", func() { h.Shell(t, "CNI_PATH=/opt/cni/bin /opt/cni/bin/cnitool del ovsnet /var/run/netns/c1") }},
		{"up", func() { h.Run(t, "/opt/cni/bin/ovs-grectl", "up", "/etc/cni/net.d/10-ovsnet.conflist") }},
		{"down", func() { h.Run(t, "/opt/cni/bin/ovs-grectl", "down", "/etc/cni/net.d/10-ovsnet.conflist") }},
	}
	kept := 0
	for _, s := range steps {
		s.do()
		if err := has(); err != nil {
			t.Errorf("after %s: %v", s.name, err)
			continue
		}
		time.Sleep((lifetime + 1) * time.Second) //nolint:forbidigo // longer than the router lives that was known
		if err := has(); err != nil {
			t.Errorf("%d s after %s: %v", lifetime+1, s.name, err)
			continue
		}
		kept++
	}
	figure("row 6: the host's default route by router advertisement, of a router that lives %d s, is there after %d of %d of ADD, DEL, up, down", lifetime, kept, len(steps))
	stop()
	testnet.Eventually(t, 30*time.Second, func() error { // it was the router's, not ours
		if has() == nil {
			return fmt.Errorf("the route outlives its router")
		}
		return nil
	})
}

// TestRouteByAdvertisementRefused: where the link cannot be told to go on
// listening, the ADD is refused, and the route stays.
func TestRouteByAdvertisementRefused(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	h.Run(t, "ip", "-6", "route", "delete", "default")
	router(t, l, 1800)
	testnet.Eventually(t, 20*time.Second, func() error { return routed(t, h) })
	cnitest.Network{}.Install(t, l)
	key := "/proc/sys/net/ipv6/conf/" + h.UnderlayLink + "/accept_ra"
	h.Shell(t, "mount --bind "+key+" "+key+"; mount -o remount,bind,ro "+key)
	c := &cnitest.Container{Netns: h.NewNetns(t, "c1"), Network: "ovsnet", IfName: "eth0"}
	err := c.Call("add")
	for _, want := range []string{"link " + h.UnderlayLink, "router advertisement", "accept_ra"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ADD: %v, want %q in it", err, want)
		}
	}
	if err := routed(t, h); err != nil {
		t.Error(err)
	}
	if v := h.Run(t, "cat", "/proc/sys/net/ipv6/conf/all/forwarding"); v != "0\n" {
		t.Errorf("forwarding is %q", v)
	}
}

// TestDoctorHears: doctor tells of a link that is not ours and believes its
// containers, and of one whose router is no longer heard because somebody else
// has switched forwarding on.
func TestDoctorHears(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	h.Shell(t, "ip link add br0 type bridge; ip link set br0 up; ip -6 route delete default")
	cnitest.Network{OVSGRE: cnitest.Conf{"linuxBridge": "br0"}, Subnets: only4}.Install(t, l)
	doctor := func() string {
		out, _ := h.Output(t.Context(), "/opt/cni/bin/ovs-grectl", "doctor", "/etc/cni/net.d/10-ovsnet.conflist")
		return out
	}
	const believes = "link br0, which is not ours, believes router advertisements"
	if out := doctor(); strings.Contains(out, believes) {
		t.Errorf("doctor warns of a link without containers:\n%s", out)
	}
	c := cnitest.Add(t, h, "ovsnet", "c1")
	if out := doctor(); !strings.Contains(out, believes) {
		t.Errorf("want %q in\n%s", believes, out)
	}
	advertise(t, c, "eth0") // as doctor says
	testnet.Eventually(t, 10*time.Second, func() error {
		if believed(t, h) == "" {
			return fmt.Errorf("br0 believes nothing")
		}
		return nil
	})
	h.Shell(t, "sysctl -w net/ipv6/conf/br0/accept_ra=0; ip -6 route flush dev br0 proto ra; ip link set br0 addrgenmode none; ip -6 addr flush dev br0")
	if out := doctor(); strings.Contains(out, believes) {
		t.Errorf("doctor still warns:\n%s", out)
	}
	router(t, l, 1800)
	testnet.Eventually(t, 20*time.Second, func() error { return routed(t, h) })
	h.Run(t, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
	unheard := "link " + h.UnderlayLink + " has addresses by router advertisement, and takes no more of them"
	if out := doctor(); !strings.Contains(out, unheard) {
		t.Errorf("want %q in\n%s", unheard, out)
	}
	h.Run(t, "sysctl", "-w", "net/ipv6/conf/"+h.UnderlayLink+"/accept_ra=2")
	if out := doctor(); strings.Contains(out, unheard) {
		t.Errorf("doctor still says that the router is not heard:\n%s", out)
	}
	testnet.Eventually(t, 20*time.Second, func() error { return routed(t, h) })
}
