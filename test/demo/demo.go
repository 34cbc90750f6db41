package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// An end is one that pings, or is pinged.
type end struct {
	name string
	from testnet.Runner // nil: is only pinged
	addr netip.Addr
}

// demo returns how many pings went unanswered.
func demo(ctx context.Context, hosts int, file string) (bad int, err error) {
	say("build the plugins and cnitool")
	bin, err := cnitest.Build()
	if err != nil {
		return 0, err
	}
	say("start %d hosts, each with an ovsdb-server and an ovs-vswitchd of its own", hosts)
	lab, err := testnet.Start(ctx, testnet.Options{Hosts: hosts, PluginDir: bin})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	name, conf, err := conflist(file, lab)
	if err != nil {
		return 0, err
	}
	say("put %s, the same file, on every host and attach a container there by cnitool", file)
	containers, err := attach(ctx, lab, name, conf)
	if err != nil {
		return 0, err
	}
	fmt.Println()
	bad = matrix(ctx, lab, containers)
	if err := proof(ctx, lab, containers); err != nil {
		return bad, err
	}
	say("detach the containers: with the last one go bridge, tunnels and routes")
	return bad, detach(ctx, lab, name)
}

func say(format string, a ...any) { fmt.Printf("· "+format+"\n", a...) }

// conflist reads the shipped file, gives it a node for every host of the lab,
// and where the kernel has no openvswitch, OVS's datapath in user space.
func conflist(file string, lab *testnet.Lab) (name, conf string, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	var list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(raw, &list); err != nil || len(list.Plugins) == 0 {
		return "", "", fmt.Errorf("%s: no conflist: %v", file, err)
	}
	main := list.Plugins[0]
	nodes, listed := main["nodes"].([]any)
	if listed && len(nodes) != len(lab.Hosts) {
		nodes = nil
		for i, h := range lab.Hosts {
			nodes = append(nodes, map[string]any{"name": h.Name, "address": h.Addr4.String(), "subnets": []string{fmt.Sprintf("192.168.%d.0/24", i+1)}})
		}
		main["nodes"] = nodes
		say("%s lists other hosts: its nodes are the %d of this demo", file, len(nodes))
	}
	if lab.Datapath == testnet.DatapathNetdev {
		main["datapathType"] = "netdev"
		say("this kernel has no openvswitch module: \"datapathType\": \"netdev\" is added, OVS's datapath in user space")
	}
	out, err := json.MarshalIndent(list, "", "  ")
	return list.Name, string(out), err
}

// attach adds a container on each host, all at once.
func attach(ctx context.Context, lab *testnet.Lab, name, conf string) ([]end, error) {
	ends := make([]end, len(lab.Hosts))
	errs := make([]error, len(lab.Hosts))
	var wg sync.WaitGroup
	for i, h := range lab.Hosts {
		wg.Go(func() { ends[i], errs[i] = attachOne(ctx, h, fmt.Sprintf("c%d", i+1), name, conf) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", lab.Hosts[i].Name, err)
		}
	}
	return ends, nil
}

func attachOne(ctx context.Context, h *testnet.Host, container, name, conf string) (end, error) {
	e := end{name: container}
	put := h.Command(ctx, "sh", "-c", "mkdir -p /etc/cni/net.d && cat >/etc/cni/net.d/10-"+name+".conflist && ip netns add "+container)
	put.Stdin = strings.NewReader(conf)
	if out, err := put.CombinedOutput(); err != nil {
		return e, fmt.Errorf("%w: %s", err, out)
	}
	out, err := cnitool(ctx, h, "add", name, container).Output()
	if err != nil {
		return e, fmt.Errorf("cnitool add: %w: %s", err, out)
	}
	var res struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(out, &res); err != nil || len(res.IPs) == 0 {
		return e, fmt.Errorf("cnitool add printed no address: %s", out)
	}
	e.addr, e.from = res.IPs[0].Address.Addr(), &testnet.Netns{Name: container, Path: "/var/run/netns/" + container, Host: h}
	return e, nil
}

func cnitool(ctx context.Context, h *testnet.Host, verb, network, container string) *exec.Cmd {
	return h.Command(ctx, "env", "CNI_PATH=/opt/cni/bin", "/opt/cni/bin/cnitool", verb, network, "/var/run/netns/"+container)
}

func detach(ctx context.Context, lab *testnet.Lab, name string) error {
	for i, h := range lab.Hosts {
		if out, err := cnitool(ctx, h, "del", name, fmt.Sprintf("c%d", i+1)).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: cnitool del: %w: %s", h.Name, err, out)
		}
		left, err := h.Output(ctx, "sh", "-c", "ovs-vsctl br-exists obr0 && echo bridge; ip route show proto 121; ip -o link show type veth | grep -w og || true")
		if err != nil || strings.TrimSpace(left) != "" {
			return fmt.Errorf("%s: left behind: %s %v", h.Name, left, err)
		}
	}
	return nil
}

// proof shows the outer packets of one ping on the underlay.
func proof(ctx context.Context, lab *testnet.Lab, ends []end) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	dump := lab.Underlay.Command(ctx, "tcpdump", "-c", "2", "-lnni", "underlay", "proto gre or udp port 4789 or udp port 6081")
	var out strings.Builder
	dump.Stdout = &out
	errs, err := dump.StderrPipe()
	if err != nil {
		return err
	}
	if err := dump.Start(); err != nil {
		return err
	}
	ready := make([]byte, 4096)
	for n, seen := 0, ""; !strings.Contains(seen, "listening on"); seen += string(ready[:n]) {
		if n, err = errs.Read(ready); err != nil {
			return fmt.Errorf("tcpdump: %w: %s", err, seen)
		}
	}
	first, last := ends[0], ends[len(ends)-1]
	if _, err := pingOnce(ctx, first.from, last.addr); err != nil {
		return err
	}
	if err := dump.Wait(); err != nil {
		return fmt.Errorf("tcpdump saw no tunnel on the underlay: %w", err)
	}
	fmt.Printf("\non the underlay while %s pings %s:\n", first.name, last.name)
	for line := range strings.Lines(out.String()) {
		fmt.Print("  ", line)
	}
	fmt.Println()
	return nil
}
