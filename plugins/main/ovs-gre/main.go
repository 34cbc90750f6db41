// Command ovs-gre is a CNI plugin. It attaches a container to an OVS bridge
// whose tunnels reach every other host of the network.
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
	}, version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"), "CNI plugin ovs-gre "+release)
}
