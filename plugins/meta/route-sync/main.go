// Command route-sync is a chained CNI plugin. It keeps this host's routes to
// the container subnets of every other host of the network.
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
	os.Exit(cni.Run("route-sync", release, &inUse, skel.CNIFuncs{
		Add: verb(add), Del: verb(del), Check: verb(check), GC: verb(gc), Status: status,
	}))
}
