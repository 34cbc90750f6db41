// Command route-sync is a chained CNI plugin. It keeps this host's routes to
// the container subnets of every other host of the network.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
)

// release is set by the linker.
var release = "devel"

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: verb(add), Del: verb(del), Check: verb(check), GC: verb(gc), Status: status,
	}, version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"), "CNI plugin route-sync "+release)
}
