// Package ovs speaks OVSDB (RFC 7047) to Open vSwitch: a connection for one
// call, the state.Backend of bridges and tunnels, and the port of one container.
// By ovs-vswitchd's control socket it asks whether that serves packets.
//
// It never talks OpenFlow. It keeps no cache, watches nothing and does not
// reconnect: a plugin lives for one call.
package ovs
