// Command bench-datapath compares the ways of a packet between two hosts:
// underlay, direct routes, GRE (also with one port for all peers, and in segment mesh),
// VXLAN, Geneve, WireGuard where the kernel has it,
// and flannel's ways, made by hand: host-gw (Linux bridges and routes), vxlan and
// wireguard (the kernel's devices in between). All stand at once and are measured in turn, round after round,
// so that a noisy machine is noisy for all of them.
package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
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
	only := flag.String("ways", "", "the ways to make and measure, by their names, joined by commas; \"\" is all, and flannel is always there")
	ipsec := flag.String("ipsec", "", "have OVS's IPsec daemon encrypt GRE, by the Debian packages in this directory; in a VM alone")
	echo := flag.String("echo", "", "internal: serve single bytes on this port, or, with -to, ask for them")
	to := flag.String("to", "", "internal: the server to ask")
	flag.Parse()
	if *echo != "" {
		return echoes(*echo, *to, *span)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bench(ctx, *rounds, *span, *ipsec, *only); err != nil {
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

func bench(ctx context.Context, rounds int, span time.Duration, ipsec, only string) (err error) {
	bin, err := cnitest.Build()
	if err != nil {
		return err
	}
	lab, err := testnet.Start(ctx, testnet.Options{Hosts: 2, PluginDir: bin})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	ways, err := build(ctx, lab, ipsec, only)
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

// A network is one of ours to be measured.
type network struct {
	name   string
	tunnel cnitest.Conf
	mode   string
}

// build makes all ways beside each other: networks with bridges, keys and
// subnets of their own.
func build(ctx context.Context, lab *testnet.Lab, ipsec, only string) ([]*way, error) {
	a, b := lab.Hosts[0], lab.Hosts[1]
	wanted := func(name string) bool {
		return only == "" || name == "flannel" || slices.Contains(strings.Split(only, ","), name)
	}
	var ways []*way
	if wanted("underlay") {
		ways = append(ways, &way{name: "underlay", client: a, host: b, server: b.Addr4})
	}
	networks := []network{
		{"direct", cnitest.Conf{"type": "none"}, "direct"},
		{"gre", cnitest.Conf{"type": "gre"}, "tunnel"},
		{"vxlan", cnitest.Conf{"type": "vxlan", "key": 11}, "tunnel"},
		{"geneve", cnitest.Conf{"type": "geneve", "key": 12}, "tunnel"},
		{"gre-one", cnitest.Conf{"type": "gre", "key": 13, "ports": "one"}, "tunnel"},
		{"gre-mesh", cnitest.Conf{"type": "gre", "key": 14}, "tunnel"},
	}
	hand := []struct{ name, script string }{{"host-gw", hostGW}, {"flannel", kernelVXLAN}}
	if _, err := a.Output(ctx, "sh", "-c", "ip link add wgprobe type wireguard && ip link del wgprobe"); err == nil {
		networks = append(networks, network{"wireguard", cnitest.Conf{"type": "wireguard"}, "tunnel"})
		hand = append(hand, struct{ name, script string }{"flannel-wg", kernelWireGuard})
	}
	if ipsec != "" {
		if err := startIPsec(ctx, lab, ipsec); err != nil {
			return nil, err
		}
		networks = slices.Delete(networks, 4, 6) // IPsec encrypts all GRE between two hosts, and these have no key for it
		networks[1] = network{"gre-ipsec", cnitest.Conf{"type": "gre", "options": cnitest.Conf{"psk": cnitest.Conf{"file": cnitest.PSKFile}}}, "tunnel"}
	}
	for i, n := range networks {
		if !wanted(n.name) {
			continue
		}
		w, err := ours(ctx, lab, n, 10+i)
		if err != nil {
			return nil, err
		}
		ways = append(ways, w)
	}
	for i, n := range hand {
		if !wanted(n.name) {
			continue
		}
		w, err := byHand(ctx, lab, n.name, n.script, 20+i)
		if err != nil {
			return nil, err
		}
		ways = append(ways, w)
	}
	return ways, nil
}

// startIPsec has OVS's IPsec daemon run on each host.
func startIPsec(ctx context.Context, lab *testnet.Lab, packages string) error {
	if err := cnitest.UnpackIPsec(ctx, packages); err != nil {
		return err
	}
	// As udev does on a machine whose processor has AES instructions.
	_ = exec.Command("modprobe", "-q", "aesni_intel").Run()
	for _, h := range lab.Hosts {
		if err := errors.Join(cnitest.PrepareIPsec(ctx, h, "octarine"), cnitest.StartIPsec(ctx, h)); err != nil {
			return err
		}
	}
	return nil
}

// ours makes one of our networks, whose subnets are in 10.net.0.0/16.
func ours(ctx context.Context, lab *testnet.Lab, n network, net int) (*way, error) {
	conf := cnitest.Network{
		Name:      n.name,
		OVSGRE:    cnitest.Conf{"bridge": "b-" + n.name, "tunnel": n.tunnel},
		RouteSync: cnitest.Conf{"mode": n.mode},
		Subnets:   func(h int) []string { return []string{fmt.Sprintf("10.%d.%d.0/24", net, h+1)} },
	}
	if n.name == "gre-mesh" {
		conf.OVSGRE["segment"] = "mesh"
	}
	if n.tunnel["type"] == "wireguard" {
		keys := map[string]string{}
		for _, h := range lab.Hosts {
			if err := install(ctx, lab, h, conf); err != nil {
				return nil, err
			}
			out, err := h.Output(ctx, "/opt/cni/bin/ovs-grectl", "key")
			var node struct{ Key string }
			if err := errors.Join(err, json.Unmarshal([]byte(out), &node)); err != nil {
				return nil, err
			}
			keys[h.Name] = node.Key
		}
		conf.OVSGRE["nodes"] = conf.Keyed(lab, keys)
	}
	var ends []*testnet.Netns
	var addrs []netip.Addr
	for _, h := range lab.Hosts {
		ns, addr, err := attach(ctx, lab, h, conf)
		if err != nil {
			return nil, fmt.Errorf("%s on %s: %w", n.name, h.Name, err)
		}
		ends, addrs = append(ends, ns), append(addrs, addr)
	}
	return &way{name: n.name, client: ends[0], host: ends[1], server: addrs[1]}, nil
}

// install writes a network's conflist.
func install(ctx context.Context, lab *testnet.Lab, h *testnet.Host, n cnitest.Network) error {
	put := h.Command(ctx, "sh", "-c", fmt.Sprintf("mkdir -p /etc/cni/net.d && cat >/etc/cni/net.d/%s.conflist", n.Name))
	put.Stdin = strings.NewReader(n.Conflist(lab))
	if out, err := put.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func attach(ctx context.Context, lab *testnet.Lab, h *testnet.Host, n cnitest.Network) (*testnet.Netns, netip.Addr, error) {
	if err := install(ctx, lab, h, n); err != nil {
		return nil, netip.Addr{}, err
	}
	if _, err := h.Output(ctx, "ip", "netns", "add", n.Name); err != nil {
		return nil, netip.Addr{}, err
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
	// A WireGuard link; a peer and a route each. $key is our private key, $peerkey the
	// peer's public one.
	kernelWireGuard = `mtu=1420
		ip link add flannel-wg type wireguard; echo $key >/run/flannel-wg.key
		wg set flannel-wg private-key /run/flannel-wg.key listen-port 51821 peer $peerkey endpoint $to:51821 allowed-ips 10.$net.$peer.0/24
		ip link set flannel-wg mtu $mtu up; ip addr add 10.$net.$me.0/32 dev flannel-wg
		ip route add 10.$net.$peer.0/24 dev flannel-wg`
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
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return nil, err
		}
	}
	text := base64.StdEncoding.EncodeToString
	for i, h := range lab.Hosts {
		vars := fmt.Sprintf("name=%s net=%d me=%d peer=%d from=%s to=%s key=%s peerkey=%s ", name, net, i+1, 2-i, h.Addr4, lab.Hosts[1-i].Addr4,
			text(keys[i].Bytes()), text(keys[1-i].PublicKey().Bytes()))
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
	base := ways[slices.IndexFunc(ways, func(w *way) bool { return w.name == "flannel" })]
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
