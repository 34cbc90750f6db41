// Package config is what the operator wrote, checked: the configuration of a
// network, its nodes, and the names and numbers that follow from them alone.
//
// It does no I/O and knows nothing of this host: which node this host is, is
// package nodes's business; what the host should look like, package state's.
package config
