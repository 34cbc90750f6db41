package main

import "strings"

const module = "ovs-gre-cni/"

// weights are about how many seconds packages take on two processors. They serve
// for nothing but to say how far a run is; a package that is not here counts as one.
var weights = map[string]int{
	"pkg/agent/kube": 5, "pkg/firewall": 45, "pkg/rundir": 8, "pkg/kernel": 11, "pkg/ovs": 7, "pkg/state": 19, "pkg/testnet": 30,
	"test/agent": 110, "test/chains": 39, "test/conformance": 120, "test/drift": 120, "test/e2e": 100, "test/faults": 215,
	"test/field": 58, "test/grectl": 170, "test/hostile": 90, "test/recipes": 150,
}

// atOnce are the packages of which two run at once.
var atOnce = map[string]bool{
	"test/chains": true, "test/conformance": true, "test/drift": true, "test/faults": true, "test/hostile": true, "test/recipes": true,
}

// weight is how long a package takes of a whole run.
func weight(pkg string) float64 {
	name := strings.TrimPrefix(pkg, module)
	w := float64(max(1, weights[name]))
	if atOnce[name] {
		w /= 2
	}
	return w
}

// total is how many seconds a whole run takes.
func total() (seconds int) {
	sum := 0.0
	for pkg := range weights {
		sum += weight(pkg)
	}
	return int(sum)
}
