// Package conformance holds a chain of CNI plugins against the specification
// (SPEC.md and CONVENTIONS.md of containernetworking/cni), clause by clause
// and version by version, from outside: it calls the binaries as a runtime
// does, on a simulated host of their own, and looks at what the kernel, the
// IPAM plugin's files and Open vSwitch say afterwards.
//
// It takes any chain whose first plugin makes an interface. Clauses about Open
// vSwitch and about route-sync's routes are tried on chains that have ovs-gre
// or route-sync in them.
package conformance
