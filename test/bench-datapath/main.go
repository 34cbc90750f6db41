// Command bench-datapath compares the ways of a packet between two hosts:
// underlay, direct routes, GRE, VXLAN, Geneve, and flannel's way (the kernel's
// vxlan device and routes, made by hand). All stand at once and are measured
// in turn, round after round, so that a noisy machine is noisy for all of them.
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
	flannel, err := kernelVXLAN(ctx, lab)
	return append(ways, flannel), err
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

// kernelVXLAN is what flannel makes: a vxlan device that learns nothing, a
// route, a neighbour and a forwarding entry a peer, a Linux bridge for pods.
func kernelVXLAN(ctx context.Context, lab *testnet.Lab) (*way, error) {
	for i, h := range lab.Hosts {
		peer := 1 - i
		if _, err := h.Output(ctx, "sh", "-ec", fmt.Sprintf(`
			sysctl -qw net.ipv4.ip_forward=1
			ip link add flannel.1 address 0e:00:00:00:00:0%[1]d type vxlan id 1 dstport 8472 local %[2]s nolearning
			ip link set flannel.1 mtu 1450 up; ip addr add 10.20.%[1]d.0/32 dev flannel.1
			ip route add 10.20.%[3]d.0/24 via 10.20.%[3]d.0 dev flannel.1 onlink
			ip neigh add 10.20.%[3]d.0 lladdr 0e:00:00:00:00:0%[3]d dev flannel.1 nud permanent
			bridge fdb add 0e:00:00:00:00:0%[3]d dev flannel.1 dst %[4]s
			ip link add cni0 type bridge; ip link set cni0 mtu 1450 up; ip addr add 10.20.%[1]d.1/24 dev cni0
			ip netns add flannel; ip link add fl0 mtu 1450 type veth peer name eth0 mtu 1450 netns flannel; ip link set fl0 master cni0 up
			ip -n flannel addr add 10.20.%[1]d.2/24 dev eth0; ip -n flannel link set eth0 up; ip -n flannel route add default via 10.20.%[1]d.1`,
			i+1, h.Addr4, peer+1, lab.Hosts[peer].Addr4)); err != nil {
			return nil, fmt.Errorf("flannel's way on %s: %w", h.Name, err)
		}
	}
	end := func(h *testnet.Host) *testnet.Netns {
		return &testnet.Netns{Name: "flannel", Path: "/var/run/netns/flannel", Host: h}
	}
	return &way{name: "flannel", client: end(lab.Hosts[0]), host: end(lab.Hosts[1]), server: netip.MustParseAddr("10.20.2.2")}, nil
}

func table(lab *testnet.Lab, ways []*way, rounds int) {
	fmt.Printf("datapath %s, %d rounds, medians; ratios to flannel's way in the same run\n\n", lab.Datapath, rounds)
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
