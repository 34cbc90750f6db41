// Package probe measures loss and round trip to other hosts by ICMP echo
// requests (RFC 792, RFC 4443) of 48 bytes (IPv4) or 68 (IPv6) at a low rate.
//
// Throughput, jitter and the path's MTU are out of its scope, and so is who the
// others are: the caller says which addresses to ask, from which.
//
// Be aware:
//   - A socket of this kind needs CAP_NET_RAW, or a group of this process in the
//     sysctl net.ipv4.ping_group_range, which systemd sets to all groups.
//   - The kernel of the host that is asked answers, no program. What it answers
//     too slowly, because of net.ipv4.icmp_msgs_per_sec (1,000 by default), counts
//     as lost.
package probe
