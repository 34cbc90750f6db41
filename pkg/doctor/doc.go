// Package doctor checks the surroundings of this host's networks: daemons, kernel,
// packet filter, underlay, peers, other configuration. Each finding says what was
// observed and which command mends it. A check changes nothing.
//
// Packages network and routes compare host state with a conflist; here that is one
// check among others.
package doctor
