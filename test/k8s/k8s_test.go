package k8s

import (
	"testing"

	"ovs-gre-cni/pkg/testnet"
)

func TestKubernetes(t *testing.T) {
	lab := testnet.New(t, testnet.Options{Hosts: 1})
	c := newCluster(t, lab)
	tars := images(t, c.dir)
	n := c.join(t, lab.Hosts[0], tars...)
	c.wait(t, patience, "False", "node", n.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	c.apply(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: test}}")
	t.Log(c.kubectl(t, "get", "nodes", "-o", "wide"))
	t.Log(c.kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDRs}"))
}
