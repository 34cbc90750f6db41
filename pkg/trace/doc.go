// Package trace follows one packet of a container through this host, and names the step
// that stops it: the container's route, Open vSwitch, this host's route, the packet filter,
// the neighbour entry, the tunnel. It asks each step what it does with such a packet,
// compares its configuration with the wanted one, and sends ICMP echo requests by the same
// way. It changes nothing.
//
// A packet that leaves this host must be followed further on the peer: Trace.Next is the
// command for that.
//
// Out of scope: packet filters inside of containers and on other hosts, and the state of
// TCP connections.
package trace
