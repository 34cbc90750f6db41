// Package runtimes runs the plugins with real container runtimes, each on
// simulated hosts of its own: containers reach each other over the network, and
// nothing is left of them. A table of what ran ends the output.
//
// RUNTIMES=all adds what has to be built first and takes long: containerd 2 and
// crictl, by test/upstream.
package runtimes
