package k8s

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

func TestKubernetes(t *testing.T) {
	lab := testnet.New(t, testnet.Options{Hosts: 5})
	c := newCluster(t, lab, options{proxy: "nftables"})
	c.images = append(images(t, c.dir), agentImage(t))
	for _, h := range lab.Hosts[:3] {
		c.join(t, h)
	}
	if !c.step(t, "install", c.testInstall) {
		return
	}
	c.step(t, "pods", c.testPods)
	c.step(t, "services", c.testServices)
	c.step(t, "filter on the node", c.testFilter)
	c.step(t, "host port", c.testHostPort)
	c.step(t, "API server from a pod", c.testAPI)
	c.step(t, "logs and exec", c.testLogs)
	c.step(t, "probes", c.testProbes)
	c.step(t, "node joins", c.testJoin)
	c.step(t, "podCIDR reused", c.testReuse)
	c.step(t, "node leaves, agent down", c.testLeave)
	c.step(t, "API server stopped", c.testWithoutAPI)
	c.step(t, "agent killed", c.testWithoutAgent)
	c.step(t, "agents replaced", c.testReplace)
	c.step(t, "Open vSwitch restarted", c.testRestartOVS)
	c.step(t, "removed by hand", c.testDrift)
	c.step(t, "1000 nodes", c.testScale)
	c.step(t, "uninstall", c.testUninstall)
}

// step runs a part of the test and prints that it passed, with what it measured.
func (c *cluster) step(t *testing.T, name string, f func(*testing.T) string) bool {
	return t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
		begin := time.Now()
		note := f(t)
		if !t.Failed() {
			fmt.Printf("k8s: %-28s ok  %5.1f s  %s\n", name, time.Since(begin).Seconds(), note)
		}
	})
}
