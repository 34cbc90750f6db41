package ovs

import "ovs-gre-cni/pkg/state"

// Keys of external_ids in rows of ours. What carries keyNetwork is ours; what
// does not is never changed or removed.
const (
	keyNetwork     = state.Owner
	keyRole        = "ovs-gre.role"
	keyPeer        = "ovs-gre.peer"
	keyContainerID = "ovs-gre.container-id"
	keyIfName      = "ovs-gre.ifname"
	keyBootID      = "ovs-gre.boot-id"
	// keyStamp is what former versions left on a bridge.
	keyStamp = "ovs-gre.stamp"
)

// Roles of rows, the values of keyRole.
const (
	roleBridge    = "bridge"
	roleTunnel    = "tunnel"
	roleContainer = "container"
	// roleTransit marks the internal port that versions without a bridge of the
	// tunnels' own made in its place. It is replaced by that bridge.
	roleTransit = "transit"
)
