// Package kernel asks the Linux kernel by rtnetlink and procfs for all that the
// project needs of it. It alone imports vishvananda/netlink. Messages that this
// library cannot make are made in byhand.go, newlink.go and wgkernel.go.
//
// Backend makes links, addresses, neighbours, routes and sysctls of the host
// match a state, and says how they differ. Netns and AddVeth are the
// container's side. The other functions read facts about the host.
//
// Every function works in the network namespace of the calling thread, except
// for the methods of Netns. Links other than veth pairs and WireGuard's, OVS
// ports and nftables rules are out of scope.
package kernel
