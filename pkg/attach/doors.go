package attach

import (
	"ovs-gre-cni/pkg/spec"
)

// deafen makes the container's interface deaf, before it is up, to what others
// on its segment say about routing, where IPAM has said all there is to say.
// Outside segment host the gateway itself leads by the link that a packet came
// from, and then tells of a shorter way that there is not.
func (a *adding) deafen() error {
	managed := a.Config.IPAM.Type != ""
	if !managed && a.Config.Segment == spec.SegmentHost {
		return nil
	}
	return a.ns.Deafen(a.IfName, managed)
}
