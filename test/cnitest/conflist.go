package cnitest

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"ovs-gre-cni/pkg/testnet"
)

// Conf is one plugin's configuration, or part of it.
type Conf map[string]any

// Network is a network of a lab as a conflist says it.
type Network struct {
	// Name of the network; "" is ovsnet.
	Name string
	// Version is cniVersion; "" is 1.1.0.
	Version string
	// OVSGRE are keys of ovs-gre on top of the usual; a nil value removes one.
	OVSGRE Conf
	// RouteSync are keys of route-sync.
	RouteSync Conf
	// Chain are more plugins behind them.
	Chain []Conf
	// V6 uses the underlay's IPv6 addresses.
	V6 bool
	// Subnets gives host i its container subnets; nil is Subnets(i).
	Subnets func(i int) []string
	// Nodes is how many hosts of the lab are in the network; 0 is all.
	Nodes int
}

// Subnets are the container subnets that host i has unless told otherwise.
func Subnets(i int) []string {
	return []string{fmt.Sprintf("192.168.%d.0/24", i+1), fmt.Sprintf("fd92:%d::/64", i+1)}
}

// NetworkName is the network's name, by default ovsnet.
func (n Network) NetworkName() string {
	if n.Name == "" {
		return "ovsnet"
	}
	return n.Name
}

// NodeList is the value of the key nodes.
func (n Network) NodeList(l *testnet.Lab) []Conf {
	subnets := n.Subnets
	if subnets == nil {
		subnets = Subnets
	}
	var nodes []Conf
	for i, h := range l.Hosts {
		if n.Nodes > 0 && i >= n.Nodes {
			break
		}
		addr := h.Addr4
		if n.V6 {
			addr = h.Addr6
		}
		nodes = append(nodes, Conf{"name": h.Name, "address": addr.String(), "subnets": subnets(i)})
	}
	return nodes
}

// Conflist is the file, the same on every host of the lab.
func (n Network) Conflist(l *testnet.Lab) string {
	version := n.Version
	if version == "" {
		version = "1.1.0"
	}
	main := Conf{
		"type": "ovs-gre", "nodes": n.NodeList(l), "ipam": Conf{"type": "host-local"},
		"capabilities": Conf{"ips": true, "mac": true, "ipRanges": true},
	}
	if l.Datapath == testnet.DatapathNetdev {
		main["datapathType"] = "netdev"
	}
	if Emulated() {
		main["timeoutSeconds"] = 120
	}
	sync := Conf{"type": "route-sync"}
	merge(main, n.OVSGRE)
	onePort(main)
	merge(sync, n.RouteSync)
	plugins := []Conf{main, sync}
	raw, err := json.MarshalIndent(Conf{"cniVersion": version, "name": n.NetworkName(), "plugins": append(plugins, n.Chain...)}, "", "  ")
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// PortsEnv is an environment variable: with "one" networks that can and do not
// say otherwise have one tunnel port for all peers, so that a suite runs for it.
const PortsEnv = "CNITEST_PORTS"

func onePort(main Conf) {
	tunnel := Conf{"ports": os.Getenv(PortsEnv)}
	given, _ := main["tunnel"].(Conf)
	merge(tunnel, given)
	if tunnel["ports"] == "one" && main["segment"] != "mesh" && tunnel["bfd"] == nil &&
		tunnel["type"] != "none" && tunnel["type"] != "wireguard" {
		main["tunnel"] = tunnel
	}
}

func merge(into, from Conf) {
	for k, v := range from {
		if v == nil {
			delete(into, k)
		} else {
			into[k] = v
		}
	}
}

// Install writes the conflist on every host.
func (n Network) Install(t testing.TB, l *testnet.Lab) {
	t.Helper()
	for _, h := range l.Hosts {
		h.WriteFile(t, "/etc/cni/net.d/10-"+n.NetworkName()+".conflist", n.Conflist(l))
	}
}
