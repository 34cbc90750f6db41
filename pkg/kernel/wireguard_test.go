package kernel

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
	"ovs-gre-cni/test/cnitest"
)

// startWireGuard makes a network's link in the test's namespace, by wireguard-go
// where the kernel has no WireGuard.
func startWireGuard(t *testing.T, network, link string) {
	t.Helper()
	if ipErr("link add "+link+" type wireguard") != nil {
		program, err := cnitest.WireGuardGo()
		if err != nil {
			t.Fatal(err)
		}
		// It goes into the background, with the link.
		if out, err := exec.Command(program, link).CombinedOutput(); err != nil {
			t.Fatalf("wireguard-go: %v\n%s", err, out)
		}
		t.Cleanup(func() { _ = ipErr("link del " + link) })
	}
	ip(t, "link set dev "+link+" alias "+config.WireGuardAlias(network))
}

func wgKey(b byte) string { return base64.StdEncoding.EncodeToString([]byte{31: b}) }

// TestWireGuard changes each attribute of a link and its peers behind our back:
// it is told, and mended.
func TestWireGuard(t *testing.T) {
	const network, link = "test-wireguard", "ogtest-w"
	ctx := inNetns(t)
	t.Cleanup(func() {
		if err := rundir.RemoveKeys(network); err != nil {
			t.Error(err)
		}
	})
	if err := rundir.SyncKey(network, ""); err != nil {
		t.Fatal(err)
	}
	peer := state.WireGuardPeer{Link: link, Key: wgKey(1), Endpoint: netip.MustParseAddrPort("192.0.2.1:51820"), AllowedIPs: "10.1.1.0/24,fd00:1::/64"}
	other := state.WireGuardPeer{Link: link, Key: wgKey(2), Endpoint: netip.MustParseAddrPort("[2001:db8::2]:51821"), AllowedIPs: "10.1.2.0/24", Keepalive: 25}
	want := state.Set{}
	want.Put(state.WireGuard{Network: network, Name: link, Port: 40123}, peer, other)
	b := NewBackend(Scope{WireGuard: WireGuardScope{Network: network, Link: link}})
	drift := func() []state.Change {
		t.Helper()
		have, err := b.Observe(ctx, want)
		if err != nil {
			t.Fatal(err)
		}
		return state.Diff(want, have)
	}
	startWireGuard(t, network, link)
	l, err := LinkByName(ctx, link)
	if err != nil {
		t.Fatal(err)
	}
	control, err := l.control()
	if err != nil {
		t.Fatal(err)
	}
	zero, seconds := rundir.Key{}, uint16(7)
	set := func(c wgConfig) {
		t.Helper()
		if err := control.set(c); err != nil {
			t.Fatal(err)
		}
	}
	change := func(p wgPeerConfig) func() { return func() { p.key = [32]byte{31: 1}; set(wgConfig{peer: &p}) } }
	for _, step := range []struct {
		name string
		do   func()
		says string
	}{
		{"at first", func() {}, "listen-port is "},
		{"nothing", func() {}, ""},
		{"another port", func() { set(wgConfig{port: 40124}) }, "listen-port is 40124, should be 40123"},
		{"no key", func() { set(wgConfig{private: &zero}) }, "it has not this host's private key"},
		{"a peer is gone", change(wgPeerConfig{remove: true}), "WireGuard peer AAAAAAAA… of " + link + " is missing"},
		{"another endpoint", change(wgPeerConfig{endpoint: netip.MustParseAddrPort("192.0.2.9:1")}), "endpoint is 192.0.2.9:1, should be 192.0.2.1:51820"},
		{"a subnet more", change(wgPeerConfig{allowed: prefixes("10.1.1.0/24", "fd00:1::/64", "0.0.0.0/0")}), "allowed-ips have 0.0.0.0/0 too much"},
		{"a keepalive", change(wgPeerConfig{keepalive: &seconds}), "persistent-keepalive is 7, should be 0"},
		{"a stranger", func() { set(wgConfig{peer: &wgPeerConfig{key: [32]byte{31: 9}}}) }, "WireGuard peer AAAAAAAA… of " + link + " is left over"},
	} {
		step.do()
		changes := drift()
		var said []string
		for _, c := range changes {
			said = append(said, c.Drift())
		}
		if text := strings.Join(said, "\n"); (text == "") != (step.says == "") || !strings.Contains(text, step.says) {
			t.Errorf("%s: %q, want %q", step.name, text, step.says)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", changes, changes), "private_key") {
			t.Errorf("%s: a secret is told: %v", step.name, changes)
		}
		if err := b.Apply(ctx, changes); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if left := drift(); len(left) > 0 {
			t.Errorf("%s: after Apply: %v", step.name, left)
		}
	}

	ip(t, "link set dev "+link+" alias other")
	changes := drift()
	if err := state.CheckForeign(changes); !errors.Is(err, fault.ErrForeign) {
		t.Errorf("another's link: %v", err)
	}
	if have, err := b.Observe(ctx, state.Set{}); err != nil || len(have) > 0 {
		t.Errorf("another's link is taken for ours: %v, %v", have, err)
	}
	ip(t, "link set dev "+link+" alias "+config.WireGuardAlias(network))
	have, err := b.Observe(ctx, state.Set{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Apply(ctx, state.Diff(state.Set{}, have)); err != nil {
		t.Fatal(err)
	}
	if _, err := LinkByName(ctx, link); err == nil {
		t.Error("the link is still there")
	}
}

// TestRoaming: a peer that answers from elsewhere counts as where it should be,
// unless the nodes may have changed.
func TestRoaming(t *testing.T) {
	for _, tt := range []struct {
		ago   time.Duration
		alive bool
	}{{time.Second, true}, {sessionLife - time.Second, true}, {sessionLife + time.Second, false}, {1 << 62, false}} {
		if p := (WireGuardPeer{Handshake: time.Now().Add(-tt.ago)}); p.Alive() != tt.alive {
			t.Errorf("a handshake %v ago: alive %t", tt.ago, p.Alive())
		}
	}
	if (WireGuardPeer{}).Alive() {
		t.Error("alive without a handshake")
	}
}

// TestSockaddr: what goes into a message comes out of it.
func TestSockaddr(t *testing.T) {
	for _, text := range []string{"192.0.2.1:51820", "[2001:db8::1]:1"} {
		if a := netip.MustParseAddrPort(text); addrPort(sockaddr(a)) != a {
			t.Errorf("%s becomes %s", a, addrPort(sockaddr(a)))
		}
	}
	if a := addrPort([]byte{1, 2, 3}); a.IsValid() {
		t.Errorf("three bytes are %s", a)
	}
}
