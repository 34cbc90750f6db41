// Package kernel is all that the project asks of the Linux kernel by rtnetlink
// and procfs. It alone imports vishvananda/netlink. What that library cannot do
// is in byhand.go; nothing else puts a message together or takes one apart.
//
// Backend makes links, addresses, neighbours, routes and sysctls of the host
// match a state, and says how they differ. Netns and AddVeth are the
// container's side. The rest are facts about the host.
//
// Every function works in the network namespace of the calling thread, except
// for the methods of Netns. Making OVS ports, nftables rules or any link but
// veth pairs is out of scope for this package.
package kernel
