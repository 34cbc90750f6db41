package main

import (
	"encoding/json"
	"fmt"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

const bridgeName = "cni0"

// ours is the conflist of the lab's hosts and as many made-up ones as it takes
// to have so many peers.
func ours(lab *testnet.Lab, peers int, ipv6 bool) []byte {
	n := cnitest.Network{}
	nodes := n.NodeList(lab)[:min(peers+1, len(lab.Hosts))]
	for i := len(nodes); i < peers+1; i++ {
		nodes = append(nodes, cnitest.Conf{
			"name": fmt.Sprintf("far%d", i), "address": fmt.Sprintf("172.17.%d.%d", i/250, i%250+1),
			"subnets": []string{fmt.Sprintf("10.%d.%d.0/24", i/250, i%250), fmt.Sprintf("fd10:%d::/64", i)},
		})
	}
	for _, node := range nodes {
		if s := node["subnets"].([]string); !ipv6 {
			node["subnets"] = s[:1]
		}
	}
	n.OVSGRE = cnitest.Conf{"nodes": nodes}
	return []byte(n.Conflist(lab))
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
