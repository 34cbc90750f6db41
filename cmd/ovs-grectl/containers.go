package main

import (
	"context"
	"maps"
	"slices"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/rundir"
)

// A container is one attachment, as status prints it.
type container struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
	Port        string `json:"port"`
	// State is one of the constants below, or "error: " and OVS's text.
	State string `json:"state"`
}

// The values of a container's State.
const (
	stateAttached  = "attached"
	stateBusy      = "being attached"
	stateUncounted = "attached, its lease is lost (ovs-grectl up makes it anew)"
	stateGone      = "gone: no veth pair (ovs-grectl gc removes what is left)"
	stateFormer    = "of a former boot (ovs-grectl up removes it)"
)

// inspectContainers collects the attachments from leases, links and OVS ports.
func (r *report) inspectContainers(ctx context.Context, n *network.Network) error {
	live, err := network.LiveAttachments(ctx, n.Config.Name)
	if err != nil {
		return err
	}
	ports, err := n.OVS.ContainerPorts(ctx, n.Config.Name)
	if err != nil {
		return err
	}
	leases, err := n.Dir.Leases(rundir.LeasesOVS)
	if err != nil {
		return err
	}
	found := map[string]container{}
	put := func(port string, a config.Attachment, state string) {
		found[port] = container{ContainerID: a.ContainerID, IfName: a.IfName, Port: port, State: state}
	}
	for _, l := range leases {
		put(l.Name, l.Attachment, stateGone)
	}
	for _, p := range ports {
		s := stateGone
		if p.FromPreviousBoot() {
			s = stateFormer
		}
		put(p.Name, config.Attachment{ContainerID: p.ContainerID, IfName: p.IfName}, s)
	}
	for name, a := range live {
		put(name, a, stateAttached)
	}
	lost, err := attach.WithoutLease(ctx, n.Config.Name)
	if err != nil {
		return err
	}
	for _, a := range lost {
		put(config.PortName(n.Config.Name, a.ContainerID, a.IfName), a, stateUncounted)
	}
	for _, p := range ports {
		if live[p.Name] != (config.Attachment{}) && p.Error != "" {
			put(p.Name, live[p.Name], "error: "+oneLine(p.Error))
		}
	}
	for _, l := range leases {
		if l.Busy {
			put(l.Name, l.Attachment, stateBusy)
		}
	}
	r.addContainers(found)
	return nil
}

// addContainers adds containers to the report, and their drift.
func (r *report) addContainers(found map[string]container) {
	for _, port := range slices.Sorted(maps.Keys(found)) {
		c := found[port]
		r.Containers = append(r.Containers, c)
		if c.State != stateAttached && c.State != stateBusy {
			r.differs("container "+c.ContainerID+" "+c.IfName+" ("+port+"): "+c.State, "")
		}
	}
}
