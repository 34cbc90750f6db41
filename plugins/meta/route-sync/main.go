// Command route-sync is a chained CNI plugin. It keeps this host's routes to
// the container subnets of every other host of the network.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"ovs-gre-cni/pkg/cni"
)

// release is set by the linker.
var release = "devel"

// inUse is the version of the configuration that was read; "" is none.
var inUse string

func main() { os.Exit(run()) }

func run() int {
	debug.SetGCPercent(400) // a call ends before collecting its garbage pays
	failed := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add: verb(add), Del: verb(del), Check: verb(check), GC: verb(gc), Status: status,
	}, version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"), "CNI plugin route-sync "+release)
	if failed == nil {
		return 0
	}
	if err := cni.Print(os.Stdout, inUse, failed); err != nil {
		fmt.Fprintln(os.Stderr, "route-sync:", err)
	}
	return 1
}
