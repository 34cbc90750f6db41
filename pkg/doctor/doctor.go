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

// A Level is the severity of a finding.
type Level string

// The levels. Fail means that packets, containers or reboots do not work; Warn that
// they may not, or that a check could not be made.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// A Finding is one result of a check.
type Finding struct {
	// Check is the check's name.
	Check string `json:"check"`
	// Network is the network that the finding is about; "" means the whole host.
	Network string `json:"network,omitempty"`
	Level   Level  `json:"level"`
	// Seen describes the observation in one sentence.
	Seen string `json:"seen"`
	// Command is the shell command that mends the problem, or shows more of it; ""
	// means that there is none.
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

// A check is one check and its name.
type check struct {
	name string
	run  func(context.Context, *host) []Finding
}

// checks are all checks, in the order in which they are reported.
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
	{"ipsec", ipsec},
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

// A host is what the checks know of this host: its conflists, the networks of those that
// are valid and not superseded, and its addresses.
type host struct {
	files []conflist.File
	nets  []*networkInfo
	addrs []kernel.Addr
}

// Examine runs all checks at once and returns their findings in order. It
// changes nothing, and takes ten seconds at most.
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

// unknown returns a finding about an observation that failed.
func unknown(network string, err error) Finding {
	return Finding{Network: network, Level: Warn, Seen: "could not look: " + strings.Join(strings.Fields(err.Error()), " ")}
}

// processes returns the names of all processes, cut to 15 bytes (proc(5), comm).
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

// sysctl returns the value of a kernel parameter, "" where there is none; key is its path
// below /proc/sys.
func sysctl(key string) string {
	b, err := os.ReadFile("/proc/sys/" + key)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Names returns the names of all checks, in the order in which they are reported.
func Names() []string {
	names := make([]string, len(checks))
	for i, c := range checks {
		names[i] = c.name
	}
	return names
}
