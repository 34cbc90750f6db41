// Package trace follows one packet of a container through this host, and names
// what stops it: the container's route, Open vSwitch, this host's route, the
// packet filter, the neighbour, the tunnel. It asks each of them what it does
// with such a packet, compares what they are with what they should be, and
// sends ICMP echo requests the same way.
//
// Nothing is changed. What a peer does with the packet is seen on the peer: a
// Trace that leaves this host says which command goes on there.
//
// Out of scope: what containers filter themselves, TCP's state, and packet
// filters of other hosts.
package trace
