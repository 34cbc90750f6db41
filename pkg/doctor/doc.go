// Package doctor looks at what surrounds the networks of this host: daemons,
// kernel, packet filter, underlay, peers, other people's configuration. Each
// finding says what was seen and which command mends it. Nothing is changed.
//
// Whether the host state of a network is as its conflist says is package
// network's and package routes' business; here it is one check among others.
package doctor
