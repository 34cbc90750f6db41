// Package openflow is as much of OpenFlow 1.4 as one tunnel port for all peers
// needs: it replaces all flows of a bridge in one step, and counts them by their
// cookie, over the management socket of an Open vSwitch bridge.
//
// Controllers, groups, meters, packets and more than one table are out of scope.
//
// The numbers are those of the OpenFlow Switch Specification 1.4.0, section 7,
// and, for tunnels and the action that moves bits, of OVS's
// include/openflow/nicira-ext.h and lib/meta-flow.h.
package openflow
