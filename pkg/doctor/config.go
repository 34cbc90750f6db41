package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/rundir"
)

// quote keeps a shell from taking a path for more than one word.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._/:+", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// conflists looks at our files, and for files of others that are no JSON: some
// runtimes then load no network at all.
func conflists(_ context.Context, p *host) []Finding {
	var list []Finding
	ours := map[string]bool{}
	for _, f := range p.files {
		ours[f.Path] = true
		if why := f.Superseded(); why != "" {
			list = append(list, warn(f.Name(), "mv "+quote(f.Path)+" "+quote(f.Path+".off"), "%s", why))
			continue
		}
		if f.Err == nil {
			list = append(list, ok(f.Name(), "%s is sound", f.Path))
			continue
		}
		for line := range strings.Lines(f.Err.Error()) {
			list = append(list, fail(f.Name(), "${EDITOR:-vi} "+quote(f.Path), "%s", strings.TrimSpace(line)))
		}
	}
	paths, err := conflist.Configs(conflist.ConfDir)
	if err != nil {
		return append(list, unknown("", err))
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil || ours[path] {
			continue
		}
		if _, err := config.ParseList(raw); err != nil {
			list = append(list, fail("", "${EDITOR:-vi} "+quote(path), "%s: %v: runtimes may load no network because of it", path, err))
		}
	}
	if len(p.files) == 0 {
		list = append(list, warn("", "", "no conflist in %s names ovs-gre or route-sync", conflist.ConfDir))
	}
	return list
}

// plugins looks for the executables of each chain. host-local is done by
// ovs-gre itself.
func plugins(_ context.Context, p *host) []Finding {
	dirs := filepath.SplitList(os.Getenv("CNI_PATH"))
	if len(dirs) == 0 {
		dirs = []string{"/opt/cni/bin"}
	}
	var list []Finding
	for _, n := range p.nets {
		missing := false
		for _, pl := range n.List.Plugins {
			types := []string{pl.Type, pl.IPAM}
			if pl.Type == "ovs-gre" && pl.IPAM == "host-local" {
				types = types[:1]
			}
			for _, typ := range types {
				if typ == "" || executable(dirs, typ) {
					continue
				}
				missing = true
				list = append(list, fail(n.Name(), installCommand(dirs[0], typ), "plugin %q is in none of %s", typ, strings.Join(dirs, ", ")))
			}
		}
		if !missing {
			list = append(list, ok(n.Name(), "all plugins of the chain are in %s", strings.Join(dirs, ", ")))
		}
	}
	return list
}

func executable(dirs []string, name string) bool {
	for _, d := range dirs {
		if st, err := os.Stat(filepath.Join(d, filepath.Base(name))); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

// installCommand is the command that brings a plugin: Debian and Fedora keep the
// reference plugins elsewhere than runtimes look.
func installCommand(dir, name string) string {
	for _, lib := range []string{"/usr/lib/cni", "/usr/libexec/cni"} {
		if executable([]string{lib}, name) {
			return "ln -s " + quote(filepath.Join(lib, name)) + " " + quote(filepath.Join(dir, name))
		}
	}
	if name == "ovs-gre" || name == "route-sync" {
		return "install -m 755 bin/" + name + " " + quote(dir+"/")
	}
	return "apt-get install containernetworking-plugins && ln -s " + quote("/usr/lib/cni/"+name) + " " + quote(filepath.Join(dir, name))
}

// runtimes are programs whose libcni came to know cniVersion 1.1.0 with a
// release, and who of their users is concerned. nerdctl has a libcni of its own,
// which does; Docker has none.
var runtimes = []struct{ program, least, who string }{
	{"containerd", "2.0", "by ctr and CRI, not nerdctl"},
	{"podman", "5.0", "with CNI, not netavark"},
}

// versions looks for runtimes that cannot read a result of version 1.1.0.
func versions(ctx context.Context, p *host) []Finding {
	var list []Finding
	var old []string
	for _, r := range runtimes {
		if v := programVersion(ctx, r.program); v != "" && config.VersionLess(v, r.least) {
			old = append(old, fmt.Sprintf("%s %s (%s)", r.program, v, r.who))
		}
	}
	for _, n := range p.nets {
		v := singleVersion(n.Path)
		switch {
		case v == "" || config.VersionLess(v, "1.1.0"):
			list = append(list, ok(n.Name(), "cniVersion %q", v))
		case len(old) == 0:
			list = append(list, ok(n.Name(), "cniVersion %s, and no runtime here that cannot take it", v))
		default:
			list = append(list, warn(n.Name(), fmt.Sprintf(`sed -i 's/"cniVersion": *"%s"/"cniVersion": "1.0.0"/' %s`, v, quote(n.Path)),
				"cniVersion %s, and %s cannot read results of it: each ADD fails when it is done", v, strings.Join(old, ", ")))
		}
	}
	return list
}

// singleVersion is the cniVersion of a file, which runtimes that do not know
// cniVersions take.
func singleVersion(path string) string {
	var in struct {
		CNIVersion string `json:"cniVersion"`
	}
	raw, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(raw, &in) != nil {
		return ""
	}
	return in.CNIVersion
}

var versionNumber = regexp.MustCompile(`\bv?(\d+\.\d+(\.\d+)?)`)

// programVersion is what a program says its version is; "" where there is none.
func programVersion(ctx context.Context, program string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	m := versionNumber.FindSubmatch(out)
	if err != nil || m == nil {
		return ""
	}
	return string(m[1])
}

// ownNode looks for this host among the nodes.
func ownNode(_ context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		switch {
		case n.topologyErr != nil && n.Base().NodesFile != "" && errors.Is(n.topologyErr, os.ErrNotExist):
			list = append(list, fail(n.Name(), "ls -l "+quote(n.Base().NodesFile), "%v", n.topologyErr))
		case n.topologyErr != nil:
			list = append(list, fail(n.Name(), n.editCommand(), "%v", n.topologyErr))
		case n.underlay == "":
			list = append(list, ok(n.Name(), "this host is %s by its name; no link has that address", n.topology.Self))
		case !n.topology.Fan.IsZero():
			list = append(list, ok(n.Name(), "this host is %s, on link %s, with the containers of %s; its peers are %s",
				n.topology.Self, n.underlay, n.topology.Self.Subnets[0], n.topology.Holders()[0]))
		default:
			list = append(list, ok(n.Name(), "this host is %s, on link %s, with %d peers", n.topology.Self, n.underlay, len(n.topology.Peers)))
		}
	}
	return list
}

// overlaps compares the networks' container subnets with each other and with
// what this host's links and routes have.
func overlaps(ctx context.Context, p *host) []Finding {
	var list []Finding
	for i, n := range p.nets {
		if n.topologyErr != nil {
			continue
		}
		before := len(list)
		for _, o := range p.nets[:i] {
			list = append(list, n.overlapsNet(o)...)
		}
		if n.OVS != nil {
			open := network.Network{Config: n.OVS, Topology: n.topology, Dir: rundir.NetworkDir(n.Name())}
			switch err := open.CheckSubnetsFree(ctx); {
			case errors.Is(err, fault.ErrForeign):
				for line := range strings.Lines(err.Error()) {
					list = append(list, fail(n.Name(), n.editCommand(), "%s", strings.TrimSpace(line)))
				}
			case err != nil:
				list = append(list, unknown(n.Name(), err))
			}
			others, err := open.RoutesOfOthers(ctx)
			if err != nil {
				list = append(list, unknown(n.Name(), err))
			}
			for _, o := range others {
				list = append(list, warn(n.Name(), n.editCommand(), "%s, and what that has does not go to the peer: give the network other subnets", o))
			}
		}
		for _, a := range p.addrs {
			if a.Link == "lo" || a.Prefix.Addr().IsLinkLocalUnicast() || a.Link == n.gateway || a.Link == n.transit() {
				continue
			}
			if s, owner := n.within(a.Prefix.Masked()); s.IsValid() && (n.OVS == nil || owner != n.topology.Self.Name) {
				list = append(list, fail(n.Name(), n.editCommand(), "link %s has %s, which overlaps %s of %s: give the network other subnets",
					a.Link, a.Prefix, s, owner))
			}
		}
		if len(list) == before {
			list = append(list, ok(n.Name(), "no other network or link uses its subnets"))
		}
	}
	return list
}

// holders are those whom the network's container subnets belong to, this host first.
func (n *networkInfo) holders() []config.Node {
	return append([]config.Node{n.topology.Self}, n.topology.Holders()...)
}

func (n *networkInfo) overlapsNet(o *networkInfo) []Finding {
	for _, node := range o.holders() {
		for _, s := range node.Subnets {
			if mine, owner := n.overlapping(s); mine.IsValid() {
				return []Finding{fail(n.Name(), n.editCommand(), "%s of %s overlaps %s of %s in network %s: give one of them other subnets",
					mine, owner, s, node.Name, o.Name())}
			}
		}
	}
	return nil
}

// within finds a container subnet of the network that s is, or is inside of. A
// wider one merely covers it.
func (n *networkInfo) within(s netip.Prefix) (netip.Prefix, string) {
	for _, node := range n.holders() {
		for _, mine := range node.Subnets {
			if s.Bits() >= mine.Bits() && mine.Contains(s.Addr()) {
				return mine, node.Name
			}
		}
	}
	return netip.Prefix{}, ""
}

// overlapping finds a container subnet of the network that overlaps s.
func (n *networkInfo) overlapping(s netip.Prefix) (netip.Prefix, string) {
	for _, node := range n.holders() {
		for _, mine := range node.Subnets {
			if mine.Overlaps(s) {
				return mine, node.Name
			}
		}
	}
	return netip.Prefix{}, ""
}
