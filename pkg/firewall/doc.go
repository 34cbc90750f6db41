// Package firewall is what a network wants of the host's packet filter: the
// masquerading of what leaves it, and the accepts that it needs where the
// host drops forwarded packets by default.
//
// Masquerading lives in one nftables table a network, which is ours alone:
// `nft list table inet ovs-gre-<network>` shows all of it. It is written and
// read over netlink, without the nft program, and always replaced as a whole,
// in one transaction.
//
// An accept cannot live there: in nf_tables no table overrules a drop of
// another. So rules that name links and subnets, marked with the comment
// ovs-gre:<network> or ovs-gre:<network>:routes, go into the chain that drops,
// in front of what drops all, behind what drops something else. Nothing else of
// other people's tables is ever touched.
//
// What drops is told by one engine (ruleset.fate), which takes a class of
// packets through the chains of a hook: nf_tables' and the old iptables'. Ask
// and Backend.Obstacles are its questions for others.
//
// Surprises:
//
//   - Rules of ours are as if they were not there when the engine looks for
//     what drops: otherwise it would find nothing to put them in front of.
//   - In iptables-nft's chains our rules are written over netlink in the form
//     that iptables gives them, by matches of xtables: a rule in nft's own form
//     with ct makes iptables refuse the whole table.
//   - The old iptables counts rules; whoever writes between our reading and our
//     writing shifts them. The next look finds that.
//
// Filtering between containers and on the host's own ports is out of scope.
package firewall
