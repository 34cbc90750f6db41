package doctor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/state"
)

// restorers are the drop-ins of systemd that have the flows put back when
// ovs-vswitchd starts; deploy/systemd has ours.
var restorers = []string{"/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"}

// flowTables looks whether somebody puts the flows back that all tunnel traffic
// goes by, where they are ovs-vswitchd's alone and go with it; and tells what they
// have kept out.
func flowTables(ctx context.Context, p *host) []Finding {
	var list []Finding
	agent := agentRuns()
	for _, n := range p.nets {
		if n.OVS == nil || !state.OneTunnel(n.OVS) {
			continue
		}
		if !agent && !restored() {
			list = append(list, warn(n.Name(),
				n.upCommand()+"  # after each restart of ovs-vswitchd; the package's drop-in or ovs-gre-agent does so",
				"after a restart of ovs-vswitchd nothing gets to the peers until the next ADD or up: there is neither ovs-gre-agent nor "+
					"a drop-in of ovs-vswitchd.service that puts the flows back"))
		}
		if !n.up {
			continue // host state says more
		}
		refused, err := ovs.Strangers(ctx, n.OVS.OVSDB, state.TunnelBridge(n.OVS))
		if err != nil {
			list = append(list, unknown(n.Name(), err))
			continue
		}
		list = append(list, ok(n.Name(), "%d packets of hosts that are no peers were dropped", refused))
	}
	return list
}

// agentRuns reports whether an agent of this host runs: it has the host's network,
// and may have a process namespace of its own.
func agentRuns() bool {
	own, err := os.Readlink("/proc/self/ns/net")
	comms, _ := filepath.Glob("/proc/[0-9]*/comm")
	return err == nil && slices.ContainsFunc(comms, func(comm string) bool {
		name, err := os.ReadFile(comm)
		if err != nil || strings.TrimSpace(string(name)) != "ovs-gre-agent" {
			return false
		}
		ns, err := os.Readlink(filepath.Join(filepath.Dir(comm), "ns/net"))
		return err == nil && ns == own
	})
}

// restored reports whether a drop-in of ours is there.
func restored() bool {
	for _, dir := range restorers {
		if found, _ := filepath.Glob(dir + "/systemd/system/ovs-vswitchd.service.d/*ovs-gre*.conf"); len(found) > 0 {
			return true
		}
	}
	return false
}
