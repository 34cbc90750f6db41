// Package ping sends ICMP echo requests to many addresses at once. By them it measures loss,
// round trip and path MTU from this host to its peers, on the underlay and through the
// tunnels.
//
//	err := ping.Ask(ctx, echoes)         // sets Answered and RTT of each
//	edges, err := ping.Row(ctx, h, step) // loss, round trip and MTU to each peer
//
// All requests of a family go by one raw socket, so that 500 peers take as long as one.
// Nothing is changed, except for entries that the kernel learns of neighbours and paths.
//
// A peer whose packet filter drops ICMP counts as one that does not answer, although other
// packets may reach it.
package ping
