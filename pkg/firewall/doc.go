// Package firewall makes the rules that a network needs in the host's packet filter,
// and finds the rules of others that drop its packets.
//
//   - Backend makes the masquerade of packets that leave the network, and rules
//     that accept its packets where the host drops forwarded packets.
//   - GuardBackend drops clear packets of an encrypted network.
//   - SpoofCheck drops packets that a container sends with the address of another.
//   - FindDrops and Backend.Obstacles name the rules that drop packets.
//
// Masquerade and guard have an nftables table each that is the network's alone, such
// as `nft list table inet ovs-gre-<network>`. It is written and read over netlink,
// without the nft program, and replaced as a whole in one transaction.
//
// An accept in a table of our own has no effect on a drop in another table. So accept
// rules go into the chain that drops: in front of the rule that drops all packets, and
// behind rules that drop some. They have the comment ovs-gre:<network> or
// ovs-gre:<network>:routes. Nothing else in tables of others is changed.
//
// ruleset.outcomeAt takes a class of packets through the base chains of a hook, those
// of nf_tables and of iptables-legacy, and finds the rule that drops them.
//
// Surprises:
//
//   - outcomeAt skips our own rules: with them, it would not find the drop that they
//     must stay in front of.
//   - In iptables-nft's chains our rules have the form that iptables gives them, with
//     matches of xtables: a rule in nft's own form with ct makes iptables refuse to
//     list the whole table.
//   - Rules of iptables-legacy are placed by number. Another program that changes
//     them between our reading and writing shifts the numbers; the next survey finds
//     a rule at a wrong place.
//
// Filtering between containers and on the host's own ports is out of scope.
package firewall
