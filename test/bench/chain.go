package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

const bridgeName = "cni0"

// nodesFile is where a list of nodes is that the conflist does not have.
const nodesFile = "/etc/cni/nodes.json"

// ours is the conflist of a host of the lab, others of it and as many made-up
// ones as it takes to have so many peers; and the list of all these.
func ours(lab *testnet.Lab, at *testnet.Host, peers int, o options, ports string) (list []byte, file string) {
	n := cnitest.Network{}
	if o.local != nil { // a /24 has room for 253 containers
		n.Subnets = func(i int) []string {
			return []string{fmt.Sprintf("192.168.%d.0/21", 8*i), fmt.Sprintf("fd92:%d::/64", i+1)}
		}
	}
	nodes := n.NodeList(lab)
	self := slices.Index(lab.Hosts, at)
	nodes[0], nodes[self] = nodes[self], nodes[0]
	nodes = nodes[:min(peers+1, len(lab.Hosts))]
	for i := len(nodes); i < peers+1; i++ {
		nodes = append(nodes, cnitest.Conf{
			"name": fmt.Sprintf("far%d", i), "address": fmt.Sprintf("172.17.%d.%d", i/250, i%250+1),
			"subnets": []string{fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), fmt.Sprintf("fd10:%d::/64", i)},
		})
	}
	for _, node := range nodes {
		if s := node["subnets"].([]string); !o.ipv6 {
			node["subnets"] = s[:1]
		}
	}
	raw, err := json.Marshal(nodes)
	if err != nil {
		panic(err)
	}
	n.OVSGRE = cnitest.Conf{"nodes": nodes}
	if o.nodesFile {
		n.OVSGRE = cnitest.Conf{"nodes": nil, "nodesFile": nodesFile}
	}
	if o.local != nil {
		n.OVSGRE["timeoutSeconds"] = 300 // ovs-vswitchd may take seconds for a port beside a thousand others
	}
	if ports != "peer" { // else other builds know the conflist, too
		n.OVSGRE["tunnel"] = cnitest.Conf{"ports": ports}
	}
	return []byte(n.Conflist(lab)), string(raw)
}

// bridge is the conflist that it is compared with, one subnet of a family.
func bridge(ipv6 bool) []byte {
	ranges := [][]cnitest.Conf{}
	for _, subnet := range cnitest.Subnets(0) {
		ranges = append(ranges, []cnitest.Conf{{"subnet": subnet}})
	}
	if !ipv6 {
		ranges = ranges[:1]
	}
	raw, err := json.Marshal(cnitest.Conf{"cniVersion": "1.1.0", "name": "bridgenet", "plugins": []cnitest.Conf{{
		"type": "bridge", "bridge": bridgeName, "isDefaultGateway": true,
		"ipam": cnitest.Conf{"type": "host-local", "ranges": ranges},
	}}})
	if err != nil {
		panic(err)
	}
	return raw
}
