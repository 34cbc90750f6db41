package doctor

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/pkg/nodes"
)

// write makes a file with its directory.
func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// TestVersions: programs that print the version of a runtime, and conflists that
// it can or cannot use.
func TestVersions(t *testing.T) {
	const (
		containerd16 = "containerd: containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3"
		containerd17 = "containerd: containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da"
		containerd2  = "containerd: containerd github.com/containerd/containerd/v2 v2.4.2 "
		podman43     = "podman: podman version 4.3.1"
		podman5      = "podman: podman version 5.4.2"
	)
	const old, both, latest = `"cniVersion":"1.0.0"`, `"cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0"]`, `"cniVersion":"1.1.0"`
	for _, tt := range []struct {
		version  string
		runtimes []string
		seen     []string // in the warning; nil means none
	}{
		{latest, nil, nil},
		{latest, []string{containerd2, podman5}, nil},
		{latest, []string{containerd16}, []string{"containerd 1.6.20 (by ctr and CRI, not nerdctl)"}},
		{latest, []string{containerd17, podman5}, []string{"containerd 1.7.27"}},
		{latest, []string{containerd2, podman43}, []string{"podman 4.3.1 (with CNI"}},
		{latest, []string{containerd16, podman43}, []string{"containerd 1.6.20", "podman 4.3.1"}},
		{latest, []string{"containerd: no version here"}, nil},
		{both, []string{containerd16, podman43}, nil},
		{old, []string{containerd16, podman43}, nil},
	} {
		dir := t.TempDir()
		t.Setenv("PATH", dir)
		for _, r := range tt.runtimes {
			program, says, _ := strings.Cut(r, ": ")
			write(t, filepath.Join(dir, program), "#!/bin/sh\n[ \"$*\" = --version ] && echo '"+says+"'\n", 0o755)
		}
		path := filepath.Join(dir, "n.conflist")
		write(t, path, `{"name":"n",`+tt.version+`}`, 0o644)
		list := versions(context.Background(), &host{nets: []*networkInfo{{File: conflist.File{Path: path}}}})
		level := OK
		if tt.seen != nil {
			level = Warn
		}
		if len(list) != 1 || list[0].Level != level {
			t.Fatalf("%s, %v: %+v", tt.version, tt.runtimes, list)
		}
		for _, seen := range tt.seen {
			if !strings.Contains(list[0].Seen, seen) || !strings.Contains(list[0].Command, path) {
				t.Errorf("want %q in %+v", seen, list[0])
			}
		}
	}
}

// TestNetworkdConf: the main file of one directory counts, drop-ins of all.
func TestNetworkdConf(t *testing.T) {
	etc, run := t.TempDir(), t.TempDir()
	write(t, etc+"/networkd.conf", "[Network]\nA=main\nB = main\n[DHCP]\nC=other\n", 0o644)
	write(t, run+"/networkd.conf", "[Network]\nD=hidden\n", 0o644)
	write(t, run+"/networkd.conf.d/20-x.conf", "[Network]\nB=drop-in\n", 0o644)
	write(t, run+"/networkd.conf.d/30-y.conf", "[Network]\nE=hidden\n", 0o644)
	write(t, etc+"/networkd.conf.d/30-y.conf", "[Network]\nF=etc\n", 0o644)
	want := map[string]string{"A": "main", "B": "drop-in", "F": "etc"}
	if d := cmp.Diff(want, networkdConf(etc, run, t.TempDir()+"/absent")); d != "" {
		t.Error(d)
	}
}

// TestListed: modprobe's lists, where '-' and '_' are equal.
func TestListed(t *testing.T) {
	dep := filepath.Join(t.TempDir(), "modules.dep")
	write(t, dep, "kernel/net/openvswitch/openvswitch.ko.xz: x\nkernel/net/openvswitch/vport-gre.ko:\n", 0o644)
	for name, want := range map[string]bool{"openvswitch": true, "vport_gre": true, "gre": false, "vswitch": false} {
		if listed(dep, name) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for s, want := range map[string]string{"/etc/cni/10-n.conflist": "/etc/cni/10-n.conflist", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'"} {
		if got := quote(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

// TestCommands: commands for a GRE network over IPv4 and a VXLAN one over IPv6.
func TestCommands(t *testing.T) {
	network := func(typ, self, peer string) *networkInfo {
		node := func(name, address string) config.Node {
			return config.Node{Name: name, Address: netip.MustParseAddr(address)}
		}
		return &networkInfo{
			File:     conflist.File{Path: "/n", OVS: &config.Network{Bridge: "obr0", Tunnel: config.Tunnel{Type: typ}}},
			topology: nodes.Topology{Self: node("a", self), Peers: []config.Node{node("b", peer)}},
			underlay: "eth0",
		}
	}
	gre, vxlan := network("gre", "10.0.0.1", "10.0.0.2"), network("vxlan", "fd00::1", "fd00::2")
	proto4, port4 := gre.protocol()
	proto6, port6 := vxlan.protocol()
	table := firewall.Drop{Family: "inet", Table: "fw", Chain: "in"}
	for _, tt := range []struct{ got, want string }{
		{gre.acceptCommand(&firewall.Drop{IPTables: true}, proto4, port4), "iptables -w -I INPUT -p gre -s 10.0.0.2 -j ACCEPT"},
		{vxlan.acceptCommand(&firewall.Drop{IPTables: true, Legacy: true}, proto6, port6), "ip6tables-legacy -w -I INPUT -p udp --dport 4789 -s fd00::2 -j ACCEPT"},
		{gre.acceptCommand(&table, proto4, port4), "for a in 10.0.0.2; do nft insert rule inet fw in ip saddr $a meta l4proto 47 accept; done"},
		{vxlan.acceptCommand(&table, proto6, port6), "for a in fd00::2; do nft insert rule inet fw in ip6 saddr $a udp dport 4789 accept; done"},
		{gre.routeCommand(gre.topology.Peers[0].Address), "ip route get 10.0.0.2 from 10.0.0.1"},
		{gre.shrinkCommand(gre.topology.Peers[0].Address, 0, -38), `${EDITOR:-vi} /n  # "mtu": 1280`},
		{gre.shrinkCommand(gre.topology.Peers[0].Address, 1400, -38), "ip route replace 10.0.0.2/32 $(ip -o route get 10.0.0.2 from 10.0.0.1 | " +
			`grep -Eo '(via [^ ]+ )?dev [^ ]+') mtu 1400 && ovs-grectl up /n  # for good: "mtu": 1362 in the conflist`},
		{tunnelService(gre), " && firewall-cmd --permanent --add-protocol=gre"},
		{tunnelService(vxlan), " && firewall-cmd --permanent --add-port=4789/udp"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s\nwant %s", tt.got, tt.want)
		}
	}
}
