// Command ovs-gre is a CNI plugin. It attaches a container to an OVS bridge
// whose tunnels reach every other host of the network.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"

	"ovs-gre-cni/pkg/cni"
)

// release is set by the linker.
var release = "devel"

// inUse is the version of the configuration that was read; "" is none.
var inUse string

func main() {
	os.Exit(cni.Run("ovs-gre", release, &inUse, skel.CNIFuncs{
		Add: verb(add), Del: verb(del), Check: verb(check), GC: verb(gc), Status: status,
	}))
}
