package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/kernel"
)

// A Level says how bad a finding is.
type Level string

// The levels. Only Fail is something that keeps packets, containers or reboots
// from working.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// A Finding is what one check has to say.
type Finding struct {
	// Check is the check's name.
	Check string `json:"check"`
	// Network is the one that it is about; "" is the whole host.
	Network string `json:"network,omitempty"`
	Level   Level  `json:"level"`
	// Seen is what was found, in one sentence.
	Seen string `json:"seen"`
	// Command mends it, typed into a shell; "" where nothing has to be mended.
	Command string `json:"command,omitempty"`
	// peer is the one that it is about, many what it says of more of them, with
	// %s for who they are.
	peer, many string
}

// each makes it a finding about one peer, which may be told of many at once.
func (f Finding) each(peer, many string) Finding {
	f.peer, f.many = peer, many
	return f
}

// fold tells what more than three peers have in common once. The command is
// the first one's.
func fold(list []Finding) []Finding {
	type class struct {
		network, many string
		level         Level
	}
	peers := map[class][]string{}
	of := func(f Finding) class { return class{f.Network, f.many, f.Level} }
	for _, f := range list {
		if f.many != "" && !slices.Contains(peers[of(f)], f.peer) {
			peers[of(f)] = append(peers[of(f)], f.peer)
		}
	}
	var out []Finding
	told := map[class]bool{}
	for _, f := range list {
		names := peers[of(f)]
		if len(names) <= 3 {
			out = append(out, f)
			continue
		}
		if !told[of(f)] {
			told[of(f)] = true
			f.Seen = fmt.Sprintf(f.many, fmt.Sprintf("%d peers (%s, %s and %d more)", len(names), names[0], names[1], len(names)-2))
			out = append(out, f)
		}
	}
	return out
}

// checkTimeout is how long one check may take. They all run at once.
const checkTimeout = 8 * time.Second

// A check looks at one thing.
type check struct {
	name string
	run  func(context.Context, *host) []Finding
}

// checks are all there are, in the order in which they are told.
var checks = []check{
	{"conflists", conflists},
	{"plugins", plugins},
	{"cniVersion", versions},
	{"nodes", ownNode},
	{"subnets", overlaps},
	{"openvswitch", daemons},
	{"upcalls", lostUpcalls},
	{"OVS ports", badPorts},
	{"kernel modules", modules},
	{"userspace underlay", userspace},
	{"wireguard", wireGuard},
	{"forwarding", forwarding},
	{"router advertisements", advertisements},
	{"mesh ring", loops},
	{"rp_filter", reversePath},
	{"forward filter", forwardFilter},
	{"tunnel input", tunnelInput},
	{"docker raw drop", rawDrop},
	{"firewalld", firewalld},
	{"networkd", networkd},
	{"flow table", flowTables},
	{"host state", hostState},
	{"containers", containers},
	{"leaked addresses", leaked},
	{"gateway address", duplicateGateway},
	{"peers", peers},
	{"path MTU", pathMTU},
	{"tunnels", tunnels},
}

// A host is the host with its networks.
type host struct {
	files []conflist.File
	nets  []*networkInfo
	addrs []kernel.Addr
}

// Examine runs all checks at once and returns their findings in order. It
// changes nothing, and takes at most ten seconds.
func Examine(ctx context.Context, files []conflist.File) []Finding {
	p := gather(ctx, files)
	all := make([][]Finding, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			all[i] = c.run(ctx, p)
		})
	}
	wg.Wait()
	var list []Finding
	for i, findings := range all {
		for _, f := range fold(findings) {
			f.Check = checks[i].name
			list = append(list, f)
		}
	}
	return list
}

func ok(network, format string, args ...any) Finding {
	return Finding{Network: network, Level: OK, Seen: fmt.Sprintf(format, args...)}
}

func warn(network, command, format string, args ...any) Finding {
	return Finding{Network: network, Level: Warn, Seen: fmt.Sprintf(format, args...), Command: command}
}

func fail(network, command, format string, args ...any) Finding {
	return Finding{Network: network, Level: Fail, Seen: fmt.Sprintf(format, args...), Command: command}
}

// unknown is a finding about what could not be looked at.
func unknown(network string, err error) Finding {
	return Finding{Network: network, Level: Warn, Seen: "could not look: " + strings.Join(strings.Fields(err.Error()), " ")}
}

// processes are the names of all processes, cut to 15 bytes (proc(5), comm).
func processes() map[string]bool {
	names := map[string]bool{}
	comms, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, c := range comms {
		if b, err := os.ReadFile(c); err == nil {
			names[strings.TrimSpace(string(b))] = true
		}
	}
	return names
}

// sysctl reads a kernel parameter, its key with slashes; "" where there is none.
func sysctl(key string) string {
	b, err := os.ReadFile("/proc/sys/" + key)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Names are the names of all checks, in the order in which they are told.
func Names() []string {
	names := make([]string, len(checks))
	for i, c := range checks {
		names[i] = c.name
	}
	return names
}
