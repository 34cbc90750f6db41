// Package state is what a network wants from its host, as plain comparable
// values.
//
// It does no I/O. Desired and DesiredRoutes compute what should be, a Backend
// of package rundir reads what is, and Diff says what lies between. ADD, CHECK,
// GC, up and down differ only in which of those changes they apply
// or print.
//
// The String of every object is the command that a person would type to make
// it.
package state
