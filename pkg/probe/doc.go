// Package probe measures loss and round trip to other hosts by ICMP echo
// requests (RFC 792, RFC 4443) of 48 bytes (IPv4) or 68 (IPv6) at a low rate.
//
// Throughput, jitter and the path MTU are out of scope. The caller says which addresses
// to ask, and from which.
//
// Be aware:
//   - The sockets need CAP_NET_RAW, or a group of this process in the sysctl
//     net.ipv4.ping_group_range, which systemd sets to all groups.
//   - The kernel of the other host replies. Replies beyond its limit
//     net.ipv4.icmp_msgs_per_sec (1,000 by default) count as lost.
package probe
