// Package ovs talks to Open vSwitch. By OVSDB (RFC 7047) it makes, reads and removes
// bridges, tunnels and containers' ports; by ovs-vswitchd's control socket, as
// ovs-appctl does, static FDB entries; by OpenFlow (pkg/openflow) the table of a
// bridge with one port for all peers.
//
// A Conn serves one call of a plugin: it keeps no cache and does not reconnect.
// Watch and WatchVswitchd are for the agent. Errors about an OVS that does not run
// or answer wrap ErrUnavailable, those about requests that OVS refuses ErrRefused.
package ovs
