package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestContainerSegment looks at a segment of one's own: full-length prefixes,
// a gateway that is on the link only because the route says so, and everything
// by way of the host.
func TestContainerSegment(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	before := snapshot(t, l.Hosts[0])
	cnitest.Network{OVSGRE: cnitest.Conf{"segment": "container"}}.Install(t, l)
	cs := one(t, l, "ovsnet")
	from, near := cs[0], cnitest.Add(t, l.Hosts[0], "ovsnet", "near")
	for _, c := range append(cs, near) {
		for _, ip := range c.Result.IPs {
			if ones, bits := ip.Address.Mask.Size(); ones != bits {
				t.Errorf("%s: the result has %s", c.Name, ip.Address.String())
			}
		}
		for _, a := range strings.Fields(c.Shell(t, "ip -o address show dev eth0 scope global | sed 's/.* inet6* //; s/ .*//'")) {
			if p, err := netip.ParsePrefix(a); err == nil && !p.IsSingleIP() {
				t.Errorf("%s has %s", c.Name, a)
			}
		}
		for _, v6 := range families {
			if p := c.Shell(t, "ip -o address show dev eth0"); !strings.Contains(p, netip.PrefixFrom(c.Addr(t, v6), c.Addr(t, v6).BitLen()).String()) && !strings.Contains(p, " "+c.Addr(t, v6).String()+" ") {
				t.Errorf("%s: no %s of full length in %s", c.Name, c.Addr(t, v6), p)
			}
		}
	}
	for _, v6 := range families {
		t.Run(familyName(v6), func(t *testing.T) {
			pairs(t, cs, v6)
			// One hop in between, between neighbours, too.
			hops := "ttl=63"
			out := from.Run(t, "ping", "-n", "-c", "1", "-W", "10", near.Addr(t, v6).String())
			if !strings.Contains(out, hops) {
				t.Errorf("want %s of a neighbour: %s", hops, out)
			}
			if strings.Contains(strings.ToLower(out), "redirect") {
				t.Errorf("the host tells of a shorter way: %s", out)
			}
		})
	}
	t.Run("frames", func(t *testing.T) {
		// Neither a broadcast nor a frame to the neighbour's own MAC address.
		next := testnet.CaptureIn(t, near, "eth0", "arp")
		mac := from.Result.Interfaces[2].Mac
		args := []string{"eth0"}
		for _, dst := range []string{cnitest.Broadcast, near.Result.Interfaces[2].Mac} {
			args = append(args, cnitest.Frame(dst, mac, cnitest.TypeARP, cnitest.ARP(1, mac, from.Addr(t, false), netip.MustParseAddr("192.168.1.251"))))
		}
		gw := testnet.CaptureIn(t, from.Host, "obr0", "arp")
		if out, err := program(context.Background(), from, "frames", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		reach(t, "container 1 to its neighbour", from, near.Addr(t, false))
		if lines := next.Stop(t); seen(lines, "192.168.1.251") != 0 {
			t.Errorf("frames reach the container next to it:\n%s", strings.Join(lines, "\n"))
		}
		if lines := gw.Stop(t); seen(lines, "192.168.1.251") == 0 {
			t.Errorf("the broadcast does not even reach the gateway:\n%s", strings.Join(lines, "\n"))
		}
	})
	for _, c := range []*cnitest.Container{from, near} {
		if err := c.Call("check"); err != nil {
			t.Errorf("CHECK: %v", err)
		}
		del(t, c)
	}
	unchanged(t, l.Hosts[0], before)
}

// TestService is what a Kubernetes Service does: the host rewrites the
// destination to a container of the client's own host. The answer must come back
// by way of the host, which only a segment of one's own sees to.
func TestService(t *testing.T) {
	for _, tt := range []struct {
		segment string
		works   bool // with client and backend on one host
	}{{"host", false}, {"container", true}} {
		t.Run(tt.segment, func(t *testing.T) {
			t.Parallel()
			l := lab(t, 2)
			cnitest.Network{OVSGRE: cnitest.Conf{"segment": tt.segment}}.Install(t, l)
			cs := one(t, l, "ovsnet")
			client, near := cs[0], cnitest.Add(t, l.Hosts[0], "ovsnet", "near")
			for _, v6 := range families {
				service, family := "10.96.0.1", "ip"
				if v6 {
					service, family = "fd00:96::1", "ip6"
				}
				for _, backend := range []*cnitest.Container{near, cs[1]} {
					works := tt.works || backend != near
					t.Run(familyName(v6)+"/"+backend.Name, func(t *testing.T) {
						to := netip.AddrPortFrom(backend.Addr(t, v6), 8080)
						client.Host.WriteFile(t, "/run/service.nft", fmt.Sprintf(`
add table %[1]s service
delete table %[1]s service
table %[1]s service {
	chain prerouting {
		type nat hook prerouting priority dstnat
		%[1]s daddr %[2]s tcp dport 80 dnat to %[3]s
	}
}
`, family, service, to))
						client.Host.Run(t, "nft", "-f", "/run/service.nft")
						// The backend itself always answers: it is the way back that matters.
						if err := connect(t, client, to, backend, to, 30*time.Second); err != nil {
							t.Errorf("without the service: %v", err)
						}
						wait := 30 * time.Second
						if !works {
							wait = 3 * time.Second
						}
						err := connect(t, client, netip.AddrPortFrom(netip.MustParseAddr(service), 80), backend, to, wait)
						if works && err != nil {
							t.Errorf("the service: %v", err)
						}
						if !works && err == nil {
							t.Error("the service works: this test does not test what it is for")
						}
					})
				}
			}
		})
	}
}

// TestPortMap reaches a port of the host that portmap leads to a container: from
// containers of the same host, from the container itself, from the other host.
func TestPortMap(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	before := snapshot(t, l.Hosts[0])
	cnitest.Network{
		OVSGRE: cnitest.Conf{"segment": "container", "ipMasq": true},
		Chain:  []cnitest.Conf{{"type": "portmap", "capabilities": cnitest.Conf{"portMappings": true}}},
	}.Install(t, l)
	cs := one(t, l, "ovsnet")
	mapped := &cnitest.Container{Netns: l.Hosts[0].NewNetns(t, "mapped"), Network: "ovsnet", IfName: "eth0"}
	const ports = `CAP_ARGS={"portMappings":[{"hostPort":8081,"containerPort":80,"protocol":"tcp"}]}`
	mapped.Attach(t, ports)
	for _, v6 := range families {
		host := netip.AddrPortFrom(underlayAddr(l.Hosts[0], v6), 8081)
		to := netip.AddrPortFrom(mapped.Addr(t, v6), 80)
		for what, from := range map[string]testnet.Runner{"a container of its host": cs[0], "the container itself": mapped, "a container of the other host": cs[1], "the other host": l.Hosts[1]} {
			if err := connect(t, from, host, mapped, to, 30*time.Second); err != nil {
				t.Errorf("%s to %s: %v", what, host, err)
			}
		}
	}
	if err := mapped.Call("del", ports); err != nil {
		t.Error(err)
	}
	mapped.Delete(t)
	del(t, cs[0])
	if d := diff(before, snapshot(t, l.Hosts[0])); strings.Contains(d, "ovs-gre") || strings.Contains(d, "8081") {
		t.Errorf("left:\n%s", d)
	}
}

// connect sends something from one place to an address that should lead to a
// server, and wants it to be received there.
func connect(t *testing.T, from testnet.Runner, to netip.AddrPort, server *cnitest.Container, listen netip.AddrPort, wait time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	receiver, listening := program(ctx, server, "receive", listen.String()), make(chan struct{})
	var got, said bytes.Buffer
	receiver.Stdout, receiver.Stderr = &tripwire{to: &got, first: listening}, &said
	if err := receiver.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- receiver.Wait() }()
	select {
	case <-listening:
	case err := <-ended:
		t.Fatalf("the server ended: %v: %s", err, said.String())
	}
	sending, stop := context.WithTimeout(ctx, wait)
	defer stop()
	want, err := program(sending, from, "send", to.String(), "1000").Output()
	if err != nil {
		cancel()
		cancel()
		return fmt.Errorf("no connection to %s: %w (server: %v)", to, err, <-ended)
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("server: %w: %s", err, said.String())
	}
	if got := strings.TrimPrefix(got.String(), "listening\n"); got != string(want) {
		return fmt.Errorf("sent the checksum %q, received %q", want, got)
	}
	return nil
}
