// Package state describes host state as a set of comparable values: bridges, tunnels,
// links, addresses, routes and so on.
//
// Desired and DesiredRoutes compute the set that a network needs, a Backend observes
// the set that the host has, and Diff computes the changes from one to the other.
// ADD, CHECK, GC, up and down differ only in which of those changes they apply or
// print.
//
// The package does no I/O of its own. The String of an object is the command that
// makes it.
package state
