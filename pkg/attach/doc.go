// Package attach is one container on a network: its veth pair, its OVS port,
// its addresses. Add, Del, Check, Status and GC are the verbs of CNI; what the
// host must have for them is package network's business.
package attach
