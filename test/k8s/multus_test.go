package k8s

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
)

// attachmentCRD is what Multus reads further networks from.
const attachmentCRD = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: network-attachment-definitions.k8s.cni.cncf.io}
spec:
  group: k8s.cni.cncf.io
  scope: Namespaced
  names: {plural: network-attachment-definitions, singular: network-attachment-definition, kind: NetworkAttachmentDefinition}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {config: {type: string}}}}}}
`

// redSubnet is the subnet of a node's containers on the second network.
func redSubnet(i int) string { return fmt.Sprintf("10.66.%d.0/24", i+1) }

// TestMultus has Multus call the network of the manifests for eth0, and a second
// one of ovs-gre's for net1.
func TestMultus(t *testing.T) {
	lab := testnet.New(t, testnet.Options{Hosts: 2})
	c := newCluster(t, lab, options{proxy: "nftables"})
	c.images = append(images(t, c.dir), agentImage(t))
	for _, h := range lab.Hosts {
		c.join(t, h)
	}
	if !c.step(t, "install", c.testInstall) {
		return
	}
	c.step(t, "Multus, a second network", c.testMultus)
}

// installMultus puts Multus before the network of the manifests, and defines red.
func (c *cluster) installMultus(t *testing.T) {
	t.Helper()
	c.apply(t, attachmentCRD)
	c.kubectl(t, "wait", "--for=condition=Established", "crd/network-attachment-definitions.k8s.cni.cncf.io", "--timeout=60s")
	var nodes []manifest
	for i, n := range c.nodes {
		nodes = append(nodes, manifest{"name": n.Name, "address": n.Addr4.String(), "subnets": []string{redSubnet(i)}})
	}
	red := manifest{"type": "ovs-gre", "bridge": "obr1", "nodes": nodes, "isDefaultGateway": false, "tunnel": manifest{"key": 2},
		"ipam": manifest{"type": "host-local"}, "capabilities": manifest{"ips": true, "mac": true}}
	if c.lab.Datapath == testnet.DatapathNetdev {
		red["datapathType"] = testnet.DatapathNetdev
	}
	config, err := json.Marshal(manifest{"cniVersion": "1.0.0", "name": "red", "plugins": []any{red, manifest{"type": "route-sync"}}})
	if err != nil {
		t.Fatal(err)
	}
	c.create(t, manifest{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": manifest{"name": "red"}, "spec": manifest{"config": string(config)}})
	multus, err := filepath.Glob(filepath.Join(os.Getenv("OVSGRE_UPSTREAM"), "multus-*/multus"))
	if err != nil || len(multus) == 0 {
		t.Fatalf("make test-multus builds multus: %v", err)
	}
	for _, n := range c.nodes {
		n.Run(t, "install", multus[len(multus)-1], "/opt/cni/bin/multus")
		n.WriteFile(t, "/etc/cni/net.d/00-multus.conf", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "multus", "type": "multus", "kubeconfig": %q,
			"clusterNetwork": "/etc/cni/net.d/10-ovs-gre.conflist", "confDir": "/etc/cni/net.d", "binDir": "/opt/cni/bin", "cniDir": "/var/lib/cni/multus"}`, c.config("admin")))
		testnet.Eventually(t, patience, func() error {
			out, err := n.crictl("info")
			if err == nil && !strings.Contains(out, "multus") {
				err = errors.New(n.Name + ": containerd has not read Multus's configuration")
			}
			return err
		})
	}
}

func (c *cluster) testMultus(t *testing.T) string {
	c.installMultus(t)
	var had []string
	for _, n := range c.nodes {
		had = append(had, n.leases(t))
	}
	var addrs []netip.Addr
	for i, n := range c.nodes {
		addr := netip.MustParsePrefix(redSubnet(i)).Addr().Next().Next()
		for range 40 {
			addr = addr.Next()
		}
		addrs = append(addrs, addr)
		p := on(n, fmt.Sprintf("two%d", i), server(manifest{"app": "two"}, nil, nil))
		p["metadata"].(manifest)["annotations"] = manifest{"k8s.v1.cni.cncf.io/networks": fmt.Sprintf(
			`[{"name": "red", "namespace": "default", "ips": ["%s/24"], "mac": "02:00:00:00:66:0%d"}]`, addr, i+1)}
		c.create(t, p)
	}
	pods := c.pods(t, "app=two", len(c.nodes))
	for i, p := range pods {
		out, err := p.exec("ip -o link show net1; ip -o -4 addr show net1")
		if mac := fmt.Sprintf("02:00:00:00:66:0%d", i+1); err != nil || !strings.Contains(out, mac) || !strings.Contains(out, addrs[i].String()+"/") {
			t.Errorf("%s: net1 has not %s and %s: %s %v", p.name, addrs[i], mac, out, err)
		}
		for k, to := range pods {
			p.fetch(t, to.name, append(to.urls(), url(addrs[k], "80"))...)
		}
	}
	for i := range pods {
		c.kubectl(t, "delete", "pod", fmt.Sprintf("two%d", i), "--wait", "--timeout=120s")
	}
	for i, n := range c.nodes {
		testnet.Eventually(t, patience, func() error {
			if has := n.leases(t); has != had[i] {
				return fmt.Errorf("%s: leases %q, before %q", n.Name, has, had[i])
			}
			out, err := n.Output(t.Context(), "sh", "-c", "ls /var/lib/cni/networks/red | grep -v -e lock -e last_reserved; ovs-vsctl --timeout=20 list-br | grep obr1; ip route show proto 121 | grep 10.66; :")
			if err == nil && out != "" {
				err = fmt.Errorf("%s: left of red: %s", n.Name, out)
			}
			return err
		})
	}
	return "addresses and MAC address asked for, pods of two nodes by both networks; the stripped DEL leaves nothing"
}
