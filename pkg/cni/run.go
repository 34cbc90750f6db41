package cni

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
)

// Run runs a plugin for one call and returns its exit status. release is the plugin's
// version. inUse is the CNI version of the configuration, which the functions set when
// they have read it; "" is none.
func Run(plugin, release string, inUse *string, funcs skel.CNIFuncs) int {
	debug.SetGCPercent(400) // a call ends before collecting its garbage pays
	failed := skel.PluginMainFuncsWithError(funcs,
		version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"), "CNI plugin "+plugin+" "+release)
	if failed == nil {
		return 0
	}
	if err := Print(os.Stdout, *inUse, failed); err != nil {
		fmt.Fprintln(os.Stderr, plugin+":", err)
	}
	return 1
}
