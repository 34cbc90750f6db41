// Package filter is what a network wants of the host's packet filter: the
// masquerading of what leaves it, and the accepts that it needs where the
// host drops forwarded packets by default.
//
// Masquerading lives in one nftables table a network, which is ours alone:
// `nft list table inet ovs-gre-<network>` shows all of it. It is written and
// read over netlink, without the nft program, and always replaced as a whole,
// in one transaction.
//
// An accept cannot live there: in nf_tables no table overrules a drop of
// another. So a rule for each direction, scoped to one link and marked with
// the comment ovs-gre:<network>, goes into the chain that drops. Nothing else
// of other people's tables is ever touched.
//
// Filtering between containers and on the host's own ports is out of scope.
package filter
