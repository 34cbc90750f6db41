// Package attach attaches one container to a network: it makes its veth pair, its OVS
// port, its addresses and routes. Add, Del, Check, Status and GC are the verbs of CNI;
// package network makes the bridges and tunnels of the host.
package attach
