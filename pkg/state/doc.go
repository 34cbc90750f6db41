// Package state is what a network wants from its host, as plain comparable
// values.
//
// It does no I/O of its own. Desired and DesiredRoutes compute what should be, a
// Backend, which the caller passes, reads what is, and Diff computes the changes
// between the two. ADD, CHECK, GC, up and down differ only in which of those
// changes they apply or print.
//
// The String of every object is the command that a person would type to make
// it.
package state
