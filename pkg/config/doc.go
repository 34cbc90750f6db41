// Package config reads and checks the configurations of ovs-gre and route-sync and
// the list of nodes, and derives names and MAC addresses from them.
//
// It does no I/O and knows nothing of this host: package nodes finds this host among
// the nodes, package state computes what the host should look like.
package config
