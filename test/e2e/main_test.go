// Package e2e runs the built plugins on labs of simulated hosts with real OVS.
package e2e

import (
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// lab starts n hosts that have the binaries.
func lab(t *testing.T, n int) *testnet.Lab {
	t.Helper()
	return testnet.New(t, testnet.Options{Hosts: n, PluginDir: cnitest.BinDir(t)})
}

// one attaches a container on each host.
func one(t *testing.T, l *testnet.Lab, network string) []*cnitest.Container {
	t.Helper()
	var cs []*cnitest.Container
	for i, h := range l.Hosts {
		cs = append(cs, cnitest.Add(t, h, network, "c"+string(rune('1'+i))))
	}
	return cs
}

func ping(t *testing.T, from testnet.Runner, c *cnitest.Container, v6 bool) {
	t.Helper()
	reach(t, "to "+c.Name+" on "+c.Host.Name, from, c.Addr(t, v6))
}
