// Command bench-datapath compares the ways of a packet between two hosts:
// underlay, direct routes, GRE, VXLAN, Geneve, and flannel's two ways, made by
// hand: host-gw (Linux bridges and routes) and vxlan (the kernel's vxlan device
// in between). All stand at once and are measured in turn, round after round,
// so that a noisy machine is noisy for all of them.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

func main() { os.Exit(run()) }

func run() int {
	rounds := flag.Int("rounds", 5, "how often each way is measured")
	span := flag.Duration("time", 2*time.Second, "how long each measurement takes")
	echo := flag.String("echo", "", "internal: serve single bytes on this port, or, with -to, ask for them")
	to := flag.String("to", "", "internal: the server to ask")
	flag.Parse()
	if *echo != "" {
		return echoes(*echo, *to, *span)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bench(ctx, *rounds, *span); err != nil {
		fmt.Fprintln(os.Stderr, "bench-datapath:", err)
		return 1
	}
	return 0
}

// A way is two ends that talk, and what was measured between them.
type way struct {
	name         string
	client, host testnet.Runner // host: where the server runs
	server       netip.Addr
	one, four    []float64 // Mbit/s
	requests     []float64 // a second
}

func bench(ctx context.Context, rounds int, span time.Duration) error {
	bin, err := cnitest.Build()
	if err != nil {
		return err
	}
	lab, err := testnet.Start(ctx, testnet.Options{Hosts: 2, PluginDir: bin})
	if err != nil {
		return err
	}
	defer lab.Close()
	ways, err := build(ctx, lab)
	if err != nil {
		return err
	}
	for r := range rounds {
		for _, w := range ways {
			fmt.Fprintf(os.Stderr, "\rround %d of %d: %-10s", r+1, rounds, w.name)
			if err := w.measure(ctx, span); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
	}
	fmt.Fprint(os.Stderr, "\r                              \r")
	table(lab, ways, rounds)
	return nil
}

// build makes all ways beside each other: networks with bridges, keys and
// subnets of their own.
func build(ctx context.Context, lab *testnet.Lab) ([]*way, error) {
	a, b := lab.Hosts[0], lab.Hosts[1]
	ways := []*way{{name: "underlay", client: a, host: b, server: b.Addr4}}
	for i, n := range []struct {
		name   string
		tunnel cnitest.Conf
		mode   string
	}{
		{"direct", cnitest.Conf{"type": "none"}, "direct"},
		{"gre", cnitest.Conf{"type": "gre"}, "tunnel"},
		{"vxlan", cnitest.Conf{"type": "vxlan", "key": 11}, "tunnel"},
		{"geneve", cnitest.Conf{"type": "geneve", "key": 12}, "tunnel"},
	} {
		net := cnitest.Network{
			Name:      n.name,
			OVSGRE:    cnitest.Conf{"bridge": "b-" + n.name, "tunnel": n.tunnel},
			RouteSync: cnitest.Conf{"mode": n.mode},
			Subnets:   func(h int) []string { return []string{fmt.Sprintf("10.%d.%d.0/24", 10+i, h+1)} },
		}
		var ends []*testnet.Netns
		var addrs []netip.Addr
		for _, h := range lab.Hosts {
			ns, addr, err := attach(ctx, lab, h, net)
			if err != nil {
				return nil, fmt.Errorf("%s on %s: %w", n.name, h.Name, err)
			}
			ends, addrs = append(ends, ns), append(addrs, addr)
		}
		ways = append(ways, &way{name: n.name, client: ends[0], host: ends[1], server: addrs[1]})
	}
	for i, n := range []struct{ name, script string }{{"host-gw", hostGW}, {"flannel", kernelVXLAN}} {
		w, err := byHand(ctx, lab, n.name, n.script, 20+i)
		if err != nil {
			return nil, err
		}
		ways = append(ways, w)
	}
	return ways, nil
}

func attach(ctx context.Context, lab *testnet.Lab, h *testnet.Host, n cnitest.Network) (*testnet.Netns, netip.Addr, error) {
	put := h.Command(ctx, "sh", "-c", fmt.Sprintf("mkdir -p /etc/cni/net.d && cat >/etc/cni/net.d/%[1]s.conflist && ip netns add %[1]s", n.Name))
	put.Stdin = strings.NewReader(n.Conflist(lab))
	if out, err := put.CombinedOutput(); err != nil {
		return nil, netip.Addr{}, fmt.Errorf("%w: %s", err, out)
	}
	out, err := h.Output(ctx, "env", "CNI_PATH=/opt/cni/bin", "/opt/cni/bin/cnitool", "add", n.Name, "/var/run/netns/"+n.Name)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	var res struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal([]byte(out), &res); err != nil || len(res.IPs) != 1 {
		return nil, netip.Addr{}, fmt.Errorf("cnitool printed %s", out)
	}
	return &testnet.Netns{Name: n.Name, Path: "/var/run/netns/" + n.Name, Host: h}, res.IPs[0].Address.Addr(), nil
}

// What flannel makes between its hosts: $me and $peer are their numbers, $to is
// the peer's address, 10.$net.$peer.0/24 what its containers have.
const (
	hostGW = `mtu=1500
		ip route add 10.$net.$peer.0/24 via $to`
	// A vxlan device that learns nothing; a route, a neighbour and a
	// forwarding entry a peer.
	kernelVXLAN = `mtu=1450
		ip link add flannel.1 address 0e:00:00:00:00:0$me type vxlan id 1 dstport 8472 local $from nolearning
		ip link set flannel.1 mtu $mtu up; ip addr add 10.$net.$me.0/32 dev flannel.1
		ip route add 10.$net.$peer.0/24 via 10.$net.$peer.0 dev flannel.1 onlink
		ip neigh add 10.$net.$peer.0 lladdr 0e:00:00:00:00:0$peer dev flannel.1 nud permanent
		bridge fdb add 0e:00:00:00:00:0$peer dev flannel.1 dst $to`
	// A Linux bridge for pods, and one of them.
	pod = `
		sysctl -qw net.ipv4.ip_forward=1
		ip link add cni$net type bridge; ip link set cni$net mtu $mtu up; ip addr add 10.$net.$me.1/24 dev cni$net
		ip netns add $name; ip link add pod$net mtu $mtu type veth peer name eth0 mtu $mtu netns $name; ip link set pod$net master cni$net up
		ip -n $name addr add 10.$net.$me.2/24 dev eth0; ip -n $name link set eth0 up; ip -n $name route add default via 10.$net.$me.1`
)

// byHand makes one of flannel's ways.
func byHand(ctx context.Context, lab *testnet.Lab, name, script string, net int) (*way, error) {
	var ends []*testnet.Netns
	for i, h := range lab.Hosts {
		vars := fmt.Sprintf("name=%s net=%d me=%d peer=%d from=%s to=%s ", name, net, i+1, 2-i, h.Addr4, lab.Hosts[1-i].Addr4)
		if _, err := h.Output(ctx, "sh", "-ec", vars+script+pod); err != nil {
			return nil, fmt.Errorf("%s on %s: %w", name, h.Name, err)
		}
		ends = append(ends, &testnet.Netns{Name: name, Path: "/var/run/netns/" + name, Host: h})
	}
	return &way{name: name, client: ends[0], host: ends[1], server: netip.MustParseAddr(fmt.Sprintf("10.%d.2.2", net))}, nil
}

func table(lab *testnet.Lab, ways []*way, rounds int) {
	fmt.Printf("datapath %s, %d rounds, medians; ratios to flannel's vxlan in the same run\n\n", lab.Datapath, rounds)
	fmt.Println("| way | 1 stream Mbit/s (min–max) | ratio | 4 streams Mbit/s | ratio | requests/s | ratio |")
	fmt.Println("|---|---|---|---|---|---|---|")
	base := ways[len(ways)-1]
	for _, w := range ways {
		fmt.Printf("| %s | %.0f (%.0f–%.0f) | %.2f | %.0f | %.2f | %.0f | %.2f |\n", w.name,
			median(w.one), slices.Min(w.one), slices.Max(w.one), median(w.one)/median(base.one),
			median(w.four), median(w.four)/median(base.four), median(w.requests), median(w.requests)/median(base.requests))
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
