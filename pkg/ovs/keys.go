package ovs

import "ovs-gre-cni/pkg/state"

// Keys of external_ids in our rows. A row with keyNetwork is ours; rows without it
// are never changed or removed.
const (
	keyNetwork     = state.Owner
	keyRole        = "ovs-gre.role"
	keyPeer        = "ovs-gre.peer"
	keyContainerID = "ovs-gre.container-id"
	keyIfName      = "ovs-gre.ifname"
	keyBootID      = "ovs-gre.boot-id"
	// keyStamp was written on a bridge by former versions.
	keyStamp = "ovs-gre.stamp"
)

// Roles of rows, the values of keyRole.
const (
	roleBridge    = "bridge"
	roleTunnel    = "tunnel"
	roleContainer = "container"
	// roleTransit is the role of the internal port that versions before the bridge
	// for tunnels made in its place. It is replaced by that bridge.
	roleTransit = "transit"
)

// containerIDs are the external_ids of a container's Port and Interface.
func containerIDs(p state.Port, bootID string) map[string]string {
	return map[string]string{keyNetwork: p.Network, keyRole: roleContainer,
		keyContainerID: p.ContainerID, keyIfName: p.IfName, keyBootID: bootID}
}
