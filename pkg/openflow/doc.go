// Package openflow has the part of OpenFlow 1.4 that a bridge with one tunnel port for
// all peers needs. It replaces all flows of an Open vSwitch bridge in one step, and
// counts them by match and cookie, over the bridge's management socket.
//
// Controllers, groups, meters, packets and more than one table are out of scope.
//
// The numbers are those of the OpenFlow Switch Specification 1.4.0, section 7,
// and, for tunnels and the action that moves bits, of OVS's
// include/openflow/nicira-ext.h and lib/meta-flow.h.
package openflow
