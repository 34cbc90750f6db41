// Package ping sends ICMP echo requests to many addresses at once, and measures
// by them this host's ways to its peers: on the underlay, and through the
// tunnels.
//
//	err := ping.Ask(ctx, echoes)        // who answers?
//	row, err := ping.Row(ctx, m, ways)  // how well?
//
// One raw socket a family carries all of it, so that 500 peers take as long as
// one. Nothing is changed but what the kernel learns of neighbours and paths.
//
// What answers is the other host's kernel. ICMP that a peer's packet filter
// drops is lost for good, although other packets may pass.
package ping
